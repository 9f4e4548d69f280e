//! What selectors ask of an object.

/// What selectors ask for, taken out of the object so that a read decodes nothing.
///
/// Whoever commits an object fills them in; what is read back from disk gets them from the `attributes_of` function that
/// [`Store::open`](crate::Store::open) was given, so the two must agree.
///
/// Every object has them for as long as it is stored, between others that come and go. So all texts of an object stand in
/// one piece of memory: many small ones would each keep a page from being given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Key and value of each label in turn, then the values of the fields, with nothing between.
    text: Box<str>,
    labels: Box<[Label]>,
    /// The name of each field, and where its value stands.
    fields: Box<[(&'static str, Place)]>,
}

/// Where the parts of a label stand, which are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    begin: u32,
    middle: u32,
    end: u32,
}

/// Where a text begins and ends.
type Place = (u32, u32);

impl Attributes {
    /// Labels, which must be sorted by key, and the fields that field selectors may name, with their values.
    ///
    /// What stands after 4 GiB of texts is not found again; no object is that large.
    pub fn new<K: AsRef<str>, L: AsRef<str>, V: AsRef<str>>(
        labels: impl IntoIterator<Item = (K, L)>,
        fields: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Self {
        let mut text = String::new();
        let mut append = |part: &str| {
            let begin = length(&text);
            text.push_str(part);
            (begin, length(&text))
        };
        let labels = labels.into_iter().map(|(key, value)| {
            let (begin, middle) = append(key.as_ref());
            let (_, end) = append(value.as_ref());
            Label { begin, middle, end }
        });
        let labels = labels.collect();
        let fields = fields.into_iter().map(|(name, value)| (name, append(value.as_ref()))).collect();
        Self { text: text.into_boxed_str(), labels, fields }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|label| self.at((label.begin, label.middle)).cmp(key)).ok()?;
        let label = self.labels[found];
        Some(self.at((label.middle, label.end)))
    }

    /// The value of a field, by its path as in a field selector (`spec.nodeName`).
    pub fn field(&self, path: &str) -> Option<&str> {
        let (_, place) = self.fields.iter().find(|(name, _)| *name == path)?;
        Some(self.at(*place))
    }

    fn at(&self, (begin, end): Place) -> &str {
        self.text.get(begin as usize..end as usize).unwrap_or_default()
    }
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_name() {
        let labels = [("app", "nginx"), ("empty", ""), ("tier", "wéb")];
        let attributes = Attributes::new(labels, [("spec.nodeName", "a"), ("reason", ""), ("status.phase", "Running")]);
        for (key, value) in
            [("app", Some("nginx")), ("empty", Some("")), ("tier", Some("wéb")), ("x", None), ("", None)]
        {
            assert_eq!(attributes.label(key), value, "{key}");
        }
        for (path, value) in
            [("spec.nodeName", Some("a")), ("reason", Some("")), ("status.phase", Some("Running")), ("tier", None)]
        {
            assert_eq!(attributes.field(path), value, "{path}");
        }
        assert_eq!(Attributes::default().label("app"), None);
        assert_eq!(Attributes::default().field("reason"), None);
    }
}
