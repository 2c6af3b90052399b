//! What there is to ask for: each route with what it takes to be answered, in one table.

use super::access::Access;
use super::query::Parameters;
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
    /// The query parameters that it takes; `None`: nobody asks, for they are passed on, or a probe may send what it likes.
    pub(super) parameters: Option<Parameters>,
    pub(super) handler: MethodRouter<Shared>,
}

impl Route {
    pub(super) fn new(
        method: Method,
        path: impl Into<String>,
        access: Access,
        handler: MethodRouter<Shared>,
    ) -> Self {
        Self { method, path: path.into(), access, parameters: None, handler }
    }

    /// The query parameters that it takes; any other is refused before the handler runs.
    pub(super) fn query(mut self, parameters: Parameters) -> Self {
        self.parameters = Some(parameters);
        self
    }
}

/// What each route takes, by its path and method.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<(String, String), (Access, Option<Parameters>)>);

impl Table {
    /// The router of `routes`, and what each of them takes.
    pub(super) fn of(routes: Vec<Route>) -> (Router<Shared>, Self) {
        let mut by_path = BTreeMap::new();
        let mut served = Router::new();
        for Route { method, path, access, parameters, handler } in routes {
            served = served.route(&path, handler);
            by_path.insert((path, method.to_string()), (access, parameters));
        }
        (served, Self(by_path))
    }

    /// What a request of `method` takes whose path is that of the route `matched`; without such a route, what a method
    /// takes anywhere.
    pub(super) fn demands(&self, method: &Method, matched: Option<&str>) -> (Access, Option<Parameters>) {
        let asked = if *method == Method::HEAD { Method::GET } else { method.clone() };
        let found = matched.and_then(|path| self.0.get(&(path.to_owned(), asked.to_string())));
        found.copied().unwrap_or(match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => (Access::Reads, None),
            _ => (Access::Changes, None),
        })
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &str, Access, Option<Parameters>)> {
        self.0.iter().map(|((path, method), (access, parameters))| {
            (path.as_str(), method.as_str(), *access, *parameters)
        })
    }
}
