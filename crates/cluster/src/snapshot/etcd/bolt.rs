//! A file of bbolt, written in one go: two meta pages, an empty list of free pages, and a B+ tree for each bucket and for the
//! list of them (`page.go`, `bucket.go` and `db.go` of bbolt, format 2). Numbers are those of a little-endian machine.

use std::collections::BTreeMap;

/// What a bucket has.
pub(super) type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;

const PAGE: usize = 4096;
/// Kinds of pages.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
/// Of a leaf's element: its value is a bucket.
const IS_BUCKET: u32 = 0x01;
/// The heads of a page and of an element of one.
const HEAD: usize = 16;
const ELEMENT: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// The page of the list of free pages; the trees are behind it.
const FREE_PAGE: u64 = 2;

/// A file with these buckets.
pub(super) fn file(buckets: &BTreeMap<&str, Bucket>) -> Vec<u8> {
    let mut pages = Pages(vec![0; 3 * PAGE]);
    let list = buckets.iter().map(|(name, bucket)| {
        let items = bucket.iter().map(|(key, value)| (key.as_slice(), value.as_slice(), 0));
        let root = pages.tree(items.collect());
        // Its root, and the sequence that it has handed out.
        let head = [root.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        (name.as_bytes(), head)
    });
    let list: Vec<(&[u8], Vec<u8>)> = list.collect();
    let root = pages.tree(list.iter().map(|(name, head)| (*name, head.as_slice(), IS_BUCKET)).collect());
    let count = (pages.0.len() / PAGE) as u64;
    for id in 0..2 {
        let meta = meta(root, count, id);
        pages.head(id, META, 0, 0);
        let at = usize::try_from(id).unwrap_or_default() * PAGE + HEAD;
        pages.0[at..at + meta.len()].copy_from_slice(&meta);
    }
    pages.head(FREE_PAGE, FREELIST, 0, 0);
    pages.0
}

/// What a meta page says: where everything is, as of a transaction.
fn meta(root: u64, count: u64, transaction: u64) -> Vec<u8> {
    let page = u32::try_from(PAGE).unwrap_or_default();
    let mut meta = [MAGIC, VERSION, page, 0].map(u32::to_le_bytes).concat();
    // The root bucket with its sequence, the list of free pages, the first page that was never used.
    for number in [root, 0, FREE_PAGE, count, transaction] {
        meta.extend_from_slice(&number.to_le_bytes());
    }
    // FNV-1a of what comes before.
    let sum = meta
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    meta.extend_from_slice(&sum.to_le_bytes());
    meta
}

/// A key, its value, and the flags of the element.
type Item<'a> = (&'a [u8], &'a [u8], u32);

/// The pages so far.
struct Pages(Vec<u8>);

impl Pages {
    /// Writes a tree of items, which are in order. Returns its root.
    fn tree(&mut self, items: Vec<Item<'_>>) -> u64 {
        let size = |(key, value, _): &Item<'_>| key.len() + value.len();
        let mut level: Vec<(Vec<u8>, u64)> = Vec::new();
        for part in parts(&items, size) {
            let first = part.first().map(|(key, ..)| key.to_vec()).unwrap_or_default();
            let elements = part.iter().map(|(key, value, flags)| (*flags, *key, *value));
            level.push((first, self.leaf(&elements.collect::<Vec<_>>())));
        }
        while level.len() > 1 {
            let mut above = Vec::new();
            for part in parts(&level, |(key, _)| key.len()) {
                let first = part.first().map(|(key, _)| key.clone()).unwrap_or_default();
                above.push((first, self.branch(part)));
            }
            level = above;
        }
        level.first().map_or(0, |(_, page)| *page)
    }

    fn leaf(&mut self, elements: &[(u32, &[u8], &[u8])]) -> u64 {
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (mut heads, mut data) = (Vec::new(), Vec::new());
        for (index, (flags, key, value)) in elements.iter().enumerate() {
            // Where the key is, from the beginning of the element.
            let at = (elements.len() - index) * ELEMENT + data.len();
            heads.extend([*flags, size(at), size(key.len()), size(value.len())].map(u32::to_le_bytes).concat());
            data.extend_from_slice(key);
            data.extend_from_slice(value);
        }
        self.page(LEAF, elements.len(), &[heads, data].concat())
    }

    fn branch(&mut self, below: &[(Vec<u8>, u64)]) -> u64 {
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (mut heads, mut data) = (Vec::new(), Vec::new());
        for (index, (key, page)) in below.iter().enumerate() {
            let at = (below.len() - index) * ELEMENT + data.len();
            heads.extend([size(at), size(key.len())].map(u32::to_le_bytes).concat());
            heads.extend_from_slice(&page.to_le_bytes());
            data.extend_from_slice(key);
        }
        self.page(BRANCH, below.len(), &[heads, data].concat())
    }

    /// Adds a page, or several that are one.
    fn page(&mut self, kind: u16, count: usize, content: &[u8]) -> u64 {
        let at = self.0.len();
        let id = (at / PAGE) as u64;
        let pages = (HEAD + content.len()).div_ceil(PAGE);
        self.0.resize(at + pages * PAGE, 0);
        self.0[at + HEAD..at + HEAD + content.len()].copy_from_slice(content);
        self.head(id, kind, count, pages - 1);
        id
    }

    fn head(&mut self, id: u64, kind: u16, count: usize, overflow: usize) {
        let at = usize::try_from(id).unwrap_or_default() * PAGE;
        let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        let overflow = u32::try_from(overflow).unwrap_or(u32::MAX).to_le_bytes();
        let head = [&id.to_le_bytes()[..], &kind.to_le_bytes(), &count, &overflow].concat();
        self.0[at..at + HEAD].copy_from_slice(&head);
    }
}

/// What goes on a page each. One that is larger than a page is alone; of nothing there is one that is empty.
fn parts<T>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    let (mut from, mut bytes) = (0, HEAD);
    for (index, item) in items.iter().enumerate() {
        let more = ELEMENT + size(item);
        if index > from && bytes + more > PAGE {
            parts.push(&items[from..index]);
            (from, bytes) = (index, HEAD);
        }
        bytes += more;
    }
    parts.push(&items[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, its value, and the flags of the element.
    type Found = (Vec<u8>, Vec<u8>, usize);

    /// Reads a file as bbolt does, by what its pages say.
    struct Reader<'a>(&'a [u8]);

    impl Reader<'_> {
        fn u32(&self, at: usize) -> usize {
            u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes")) as usize
        }

        fn u64(&self, at: usize) -> usize {
            usize::try_from(u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))).expect("it fits")
        }

        fn kind_and_count(&self, page: usize) -> (u16, usize) {
            let at = page * PAGE;
            assert_eq!(self.u64(at), page, "a page knows its number");
            let u16_at = |at: usize| u16::from_le_bytes(self.0[at..at + 2].try_into().expect("two bytes"));
            (u16_at(at + 8), u16_at(at + 10).into())
        }

        /// Keys, values and flags below a page, in order; how deep it is.
        fn items(&self, page: usize) -> (Vec<Found>, usize) {
            let (kind, count) = self.kind_and_count(page);
            let mut all = Vec::new();
            let mut depth = 1;
            for index in 0..count {
                let at = page * PAGE + HEAD + index * ELEMENT;
                if kind == BRANCH {
                    let (below, deep) = self.items(self.u64(at + 8));
                    let key = at + self.u32(at);
                    assert_eq!(below[0].0, self.0[key..key + self.u32(at + 4)], "a branch knows the first key");
                    all.extend(below);
                    depth = deep + 1;
                } else {
                    assert_eq!(kind, LEAF);
                    let key = at + self.u32(at + 4);
                    let value = key + self.u32(at + 8);
                    let end = value + self.u32(at + 12);
                    all.push((self.0[key..value].to_vec(), self.0[value..end].to_vec(), self.u32(at)));
                }
            }
            (all, depth)
        }
    }

    #[test]
    fn what_is_written_is_found_by_the_pages() {
        let item = |number: usize| (format!("key {number:06}").into_bytes(), vec![b'x'; number % 300]);
        let mut large: Bucket = (0..20_000).map(item).collect();
        large.insert(b"key 000500 and long".to_vec(), vec![b'y'; 3 * PAGE]);
        let buckets = BTreeMap::from([("empty", Bucket::new()), ("large", large.clone())]);
        let file = file(&buckets);
        assert!(file.len().is_multiple_of(PAGE));
        let reader = Reader(&file);
        for page in [0, 1] {
            let at = page * PAGE + HEAD;
            assert_eq!(
                (reader.kind_and_count(page).0, reader.u32(at), reader.u32(at + 8)),
                (META, MAGIC as usize, PAGE)
            );
            assert_eq!((reader.u64(at + 40), reader.u64(at + 48)), (file.len() / PAGE, page));
        }
        assert_eq!(reader.kind_and_count(reader.u64(HEAD + 32)), (FREELIST, 0));
        let (list, _) = reader.items(reader.u64(HEAD + 16));
        let names: Vec<&[u8]> = list.iter().map(|(name, ..)| name.as_slice()).collect();
        assert_eq!(names, [&b"empty"[..], b"large"]);
        assert!(list.iter().all(|(_, head, flags)| *flags == 1 && head.len() == 16));
        let root = |index: usize| {
            usize::try_from(u64::from_le_bytes(list[index].1[..8].try_into().expect("eight"))).expect("it fits")
        };
        assert!(reader.items(root(0)).0.is_empty());
        let (found, depth) = reader.items(root(1));
        assert!(depth >= 3, "{depth}");
        let found: Vec<(Vec<u8>, Vec<u8>)> = found.into_iter().map(|(key, value, _)| (key, value)).collect();
        assert_eq!(found, large.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_sum_is_that_of_bbolt() {
        // FNV-1a of 64 bits, of its authors' test vectors.
        let sum = |text: &[u8]| {
            text.iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        };
        assert_eq!(sum(b"foobar"), 0x8594_4171_f739_67e8);
        let meta = meta(3, 4, 1);
        assert_eq!((meta.len(), meta[56..].to_vec()), (64, sum(&meta[..56]).to_le_bytes().to_vec()));
    }
}
