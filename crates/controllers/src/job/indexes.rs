//! Sets of completion indexes, as a Job's status writes them: `1,3-5,7`.

use std::fmt;

/// A set of indexes, kept as intervals: a Job may have a hundred thousand, most of them neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what [`fmt::Display`] writes. Indexes from `limit` on are left out, and so is what is no number: upstream
    /// reads a status that somebody broke as far as it can.
    pub(crate) fn parse(text: &str, limit: i32) -> Self {
        let mut intervals: Vec<(i32, i32)> = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
            let last = last.min(limit - 1);
            if first > last {
                continue;
            }
            match intervals.last_mut() {
                Some((_, end)) if *end + 1 >= first => *end = last.max(*end),
                _ => intervals.push((first, last)),
            }
        }
        Self(intervals)
    }

    /// How many there are.
    pub(crate) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether `index` is one of them.
    pub(crate) fn contains(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| *last >= index)
    }

    /// Adds indexes, in any order.
    pub(crate) fn extend(&mut self, indexes: impl IntoIterator<Item = i32>) {
        let mut all = std::mem::take(&mut self.0);
        all.extend(indexes.into_iter().map(|index| (index, index)));
        all.sort_unstable();
        for (first, last) in all {
            match self.0.last_mut() {
                Some((_, end)) if end.saturating_add(1) >= first => *end = last.max(*end),
                _ => self.0.push((first, last)),
            }
        }
    }

    /// How many of `other` are in this set too.
    pub(crate) fn common(&self, other: &Self) -> i32 {
        let mut common = 0;
        for (first, last) in &self.0 {
            for (other_first, other_last) in &other.0 {
                common += (last.min(other_last) - first.max(other_first) + 1).max(0);
            }
        }
        common
    }
}

impl fmt::Display for Indexes {
    /// Upstream: three and more neighbours are joined by a hyphen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for (indexes, text) in [
            (vec![], ""),
            (vec![3], "3"),
            (vec![1, 0], "0,1"),
            (vec![7, 4, 5, 3, 1], "1,3-5,7"),
            (vec![0, 1, 2, 2, 1], "0-2"),
        ] {
            let mut set = Indexes::default();
            set.extend(indexes.clone());
            assert_eq!(set.to_string(), text);
            assert_eq!(Indexes::parse(text, 100), set, "{text}");
            assert!(indexes.iter().all(|index| set.contains(*index)) && !set.contains(99));
        }
        assert_eq!(Indexes::parse("0-2,x,5-9,12", 8).to_string(), "0-2,5-7");
        let (a, b) = (Indexes::parse("0-4,8", 100), Indexes::parse("3-9", 100));
        assert_eq!((a.common(&b), a.total()), (3, 6));
    }
}
