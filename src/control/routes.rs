//! What there is to ask for: each route with what it takes to be answered, in one table.

use super::access::Access;
use super::respond::Shared;
use axum::Router;
use axum::http::Method;
use axum::routing::MethodRouter;
use std::collections::BTreeMap;

/// One method of one path.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) access: Access,
    pub(super) handler: MethodRouter<Shared>,
}

impl Route {
    pub(super) fn new(
        method: Method,
        path: impl Into<String>,
        access: Access,
        handler: MethodRouter<Shared>,
    ) -> Self {
        Self { method, path: path.into(), access, handler }
    }
}

/// What each route takes, by its path and method.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<(String, String), Access>);

impl Table {
    /// The router of `routes`, and what each of them takes.
    pub(super) fn of(routes: Vec<Route>) -> (Router<Shared>, Self) {
        let mut by_path = BTreeMap::new();
        let mut served = Router::new();
        for Route { method, path, access, handler } in routes {
            served = served.route(&path, handler);
            by_path.insert((path, method.to_string()), access);
        }
        (served, Self(by_path))
    }

    /// What a request of `method` takes whose path is that of the route `matched`; `None`: there is no such route.
    pub(super) fn access(&self, method: &Method, matched: Option<&str>) -> Access {
        let asked = if *method == Method::HEAD { Method::GET } else { method.clone() };
        let found = matched.and_then(|path| self.0.get(&(path.to_owned(), asked.to_string())));
        found.copied().unwrap_or(match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => Access::Reads,
            _ => Access::Changes,
        })
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &str, Access)> {
        self.0.iter().map(|((path, method), access)| (path.as_str(), method.as_str(), *access))
    }
}
