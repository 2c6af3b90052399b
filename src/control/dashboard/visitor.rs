//! Who asks for a page of the dashboard, and what that person may do (`docs/dashboard.md#access`).

use crate::control::respond::Shared;
use crate::control::sessions::{Flash, SessionId};
use axum::http::{HeaderValue, header};
use axum::response::Response;

/// Somebody who may read the pages.
pub(super) struct Visitor {
    /// Whether forms that do something are shown to them, and accepted.
    pub(super) may_act: bool,
    /// Whether a token has opened the session, which can be closed then.
    pub(super) signed_in: bool,
    /// What stands before the path of every link.
    pub(super) prefix: String,
    /// The path and the query that were asked for.
    pub(super) here: String,
    /// Whether only the part of the page is wanted that changes.
    pub(super) part: bool,
    pub(super) session: Option<SessionId>,
    pub(super) form_word: String,
    /// Sets the cookie of a session that has just begun.
    pub(super) cookie: Option<HeaderValue>,
}

impl Visitor {
    /// The address of a page of the dashboard.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The word that a form has to carry.
    pub(super) fn form_word(&self) -> &str {
        &self.form_word
    }

    /// What the last action is told as.
    pub(super) fn told(&self, shared: &Shared) -> Vec<Flash> {
        match &self.session {
            // A part is fetched behind the reader's back.
            Some(id) if !self.part => shared.sessions.take_told(id),
            _ => Vec::new(),
        }
    }

    pub(super) fn tell(&self, shared: &Shared, flash: Flash) {
        if let Some(id) = &self.session {
            shared.sessions.tell(id, flash);
        }
    }

    pub(super) fn close(&self, shared: &Shared) {
        if let Some(id) = &self.session {
            shared.sessions.close(id);
        }
    }

    /// `response` with the cookie of a session that has just begun.
    pub(super) fn remembered(&self, mut response: Response) -> Response {
        if let Some(cookie) = &self.cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie.clone());
        }
        response
    }
}

/// Whether it is a path of this server: what a browser would take for another host's is none.
pub(super) fn is_own_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.chars().all(|c| c.is_ascii_graphic() && c != '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for own in ["/", "/b/openai:x?y=1"] {
            assert!(is_own_path(own), "{own}");
        }
        for foreign in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:1", "/a\nb"]
        {
            assert!(!is_own_path(foreign), "{foreign}");
        }
    }
}
