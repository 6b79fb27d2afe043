//! Owns what events say of endpoints. Where no configuration names one, the filter makes it of the request's path, in which
//! anything may stand: `POST /users/alice@example.com/pay`. Record 0051.

use tidegate_policy::audit::About;
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};

/// What records are about that hold no endpoint in the clear.
const ABOUT: &str = "endpoint";

/// The text of an endpoint that a configuration names; of any other its method, and the rest as a subject, which is hashed or
/// left out. A template's braces stand in no request's path.
pub fn told(endpoint: &Endpoint, configured: bool) -> (String, Option<About>) {
    let text = endpoint.as_str();
    if configured || text.contains('{') {
        return (text.to_owned(), None);
    }
    let method = text.split_once(' ').map_or("", |(method, _)| method);
    let name = SubjectName::from_bytes(text.as_bytes());
    let subject = Subject { kind: SubjectKind::Path, name };
    (method.to_owned(), Some(About { limit: ABOUT.to_owned(), subject }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_in_the_clear_only_where_a_configuration_names_it() {
        for (path, template, configured, expected) in [
            ("/users/alice@example.com/pay", None, false, "POST"),
            ("/users/alice/pay", None, false, "POST"),
            ("/orders/7", None, false, "POST"),
            ("/orders", Some("/orders"), true, "POST /orders"),
            ("/users/alice/pay", Some("/users/{id}/pay"), true, "POST /users/{id}/pay"),
            // A filter or an operator that says nothing of it.
            ("/users/alice/pay", Some("/users/{id}/pay"), false, "POST /users/{id}/pay"),
            ("/users/{alice}/pay", None, false, "POST"),
        ] {
            let endpoint = Endpoint::of(b"POST", path.as_bytes(), template).expect("an endpoint");
            let (text, about) = told(&endpoint, configured);
            assert_eq!(text, expected, "{path}");
            let hidden = about.map(|about| about.subject.name);
            let name = SubjectName::from_bytes(endpoint.as_str().as_bytes());
            assert_eq!(hidden, (expected == "POST").then_some(name), "{path}");
        }
    }
}
