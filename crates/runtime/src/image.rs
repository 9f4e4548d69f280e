//! Images and the credentials to get them.

/// A local image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Content id (`sha256:…`).
    pub id: String,
    /// `REPO:TAG` names.
    pub repo_tags: Vec<String>,
    /// `REPO@sha256:…` names; empty for an image that never met a registry.
    pub repo_digests: Vec<String>,
    /// Size on disk in bytes.
    pub size: u64,
    /// User the image runs as (`""`, `1000`, `nginx`, `1000:1000`); empty in lists.
    pub user: String,
    /// Entrypoint; empty in lists.
    pub entrypoint: Vec<String>,
    /// Arguments; empty in lists.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`; empty in lists.
    pub env: Vec<String>,
}

impl Image {
    /// The numeric user id it runs as, when its user is numeric. An empty user is root.
    #[must_use]
    pub fn uid(&self) -> Option<i64> {
        match self.user.split(':').next() {
            None | Some("") => Some(0),
            Some(user) => user.parse().ok(),
        }
    }
}

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Auth {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// Address of the registry the credentials are for; empty for the image's own.
    pub server: String,
    /// A token that replaces user name and password.
    pub identity_token: String,
}

// Credentials must not reach a log by way of a derived `Debug`.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).field("server", &self.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Auth, Image};

    #[test]
    fn user_ids() {
        for (user, expect) in
            [("", Some(0)), ("0", Some(0)), ("1000", Some(1000)), ("1000:50", Some(1000)), ("nginx", None)]
        {
            let image = Image { user: user.to_owned(), ..Image::default() };
            assert_eq!(image.uid(), expect, "{user:?}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let auth = Auth { username: "me".to_owned(), password: "secret".to_owned(), ..Auth::default() };
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
