//! Owns which requests a policy takes in. Knows paths (in the one spelling that
//! [`crate::canonical`] gives them) and methods as bytes, and not what a policy then does.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::canonical::canonical;

/// What a policy's `match` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The paths that fall under the policy.
    pub path: PathPattern,
    /// The methods that do; `None` is every method.
    pub methods: Option<Vec<String>>,
}

/// A pattern over a path without its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// Every request, also `OPTIONS *` and one without a path.
    Any,
    /// This path to the letter.
    Exact(String),
    /// This path and everything below it, at a segment's border: `/api` takes in `/api/x` and
    /// not `/apis`.
    Below(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPattern {
    /// Does not begin with `/`.
    NoSlash,
    /// Holds `*` elsewhere than in a closing `/**`.
    Star,
    /// Holds `{` or `}`: templates are not part of this version.
    Template,
    /// Holds `?`, `#`, a space, a control character or a byte outside ASCII.
    Character,
    /// No request's path has this spelling once it is normalised, so nothing would ever match.
    NotCanonical,
}

// === impl PathPattern ===

impl PathPattern {
    /// Reads `/exact`, `/prefix/**` or `/**`.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        if !text.starts_with('/') {
            return Err(BadPattern::NoSlash);
        }
        let (literal, below) = match text.strip_suffix("/**") {
            Some(literal) => (literal, true),
            None => (text, false),
        };
        if literal.contains('*') {
            return Err(BadPattern::Star);
        }
        if literal.contains(['{', '}']) {
            return Err(BadPattern::Template);
        }
        if literal.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'?' | b'#')) {
            return Err(BadPattern::Character);
        }
        let escaped_slash = ["%2F", "%5C", "%00"].iter().any(|code| literal.contains(code));
        let open = below && literal.ends_with('/');
        if *canonical(literal.as_bytes()) != *literal.as_bytes() || escaped_slash || open {
            return Err(BadPattern::NotCanonical);
        }
        Ok(match (below, literal) {
            (true, "") => Self::Any,
            (true, _) => Self::Below(literal.to_string()),
            (false, _) => Self::Exact(literal.to_string()),
        })
    }

    /// Whether a path, in its one spelling, falls under the pattern; `None` is a request without.
    pub fn matches(&self, path: Option<&[u8]>) -> bool {
        let Some(path) = path else {
            return *self == Self::Any;
        };
        match self {
            Self::Any => true,
            Self::Exact(literal) => path == literal.as_bytes(),
            Self::Below(literal) => path
                .strip_prefix(literal.as_bytes())
                .is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/')),
        }
    }
}

// === impl Matcher ===

impl Matcher {
    /// Whether the method falls under the policy; `None` is a request without one, which only a
    /// policy over every method takes in.
    pub fn matches_method(&self, method: Option<&[u8]>) -> bool {
        match (&self.methods, method) {
            (None, _) => true,
            (Some(methods), Some(method)) => methods.iter().any(|m| m.as_bytes() == method),
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_in_what_they_say() {
        let rows: [(&str, &[&str], &[&str]); 4] = [
            (
                "/login",
                &["/login", "/login?next=/", "/login;x", "/a/..;/login"],
                &["/login/", "/login2", "/Login", "/", "*", ""],
            ),
            (
                "/api/**",
                &["/api", "/api/", "/api/x/y?z", "/api?q", "http://h/api/x"],
                &["/apis", "/ap", "/x/api"],
            ),
            ("/**", &["/", "/x", "*", "", "http://h", "no-slash"], &[]),
            ("/", &["/", "/?x", "http://h", "http://h?x"], &["/x", "*"]),
        ];
        for (pattern, inside, outside) in rows {
            let parsed = PathPattern::parse(pattern).expect(pattern);
            for path in inside {
                assert!(
                    parsed.matches(Some(&canonical(path.as_bytes()))),
                    "{pattern} takes in {path}"
                );
            }
            for path in outside {
                assert!(
                    !parsed.matches(Some(&canonical(path.as_bytes()))),
                    "{pattern} leaves out {path}"
                );
            }
        }
    }

    #[test]
    fn a_request_without_a_path_falls_under_everything_only() {
        assert!(PathPattern::Any.matches(None));
        assert!(!PathPattern::Below("/x".to_string()).matches(None));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let rows = [
            ("", BadPattern::NoSlash),
            ("api", BadPattern::NoSlash),
            ("/a*", BadPattern::Star),
            ("/**/x", BadPattern::Star),
            ("/a/{id}", BadPattern::Template),
            ("/a?b", BadPattern::Character),
            ("/a b", BadPattern::Character),
            ("/ä", BadPattern::Character),
            ("/a//b", BadPattern::NotCanonical),
            ("//**", BadPattern::NotCanonical),
            ("/x/../y", BadPattern::NotCanonical),
            ("/logi%6e", BadPattern::NotCanonical),
            ("/caf%c3%a9", BadPattern::NotCanonical),
            ("/a;b", BadPattern::NotCanonical),
            ("/c%2Fd", BadPattern::NotCanonical),
        ];
        for (text, expected) in rows {
            assert_eq!(PathPattern::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn methods_are_compared_to_the_letter() {
        let some = Matcher { path: PathPattern::Any, methods: Some([String::from("POST")].into()) };
        assert!(some.matches_method(Some(b"POST")));
        assert!(!some.matches_method(Some(b"post")));
        assert!(!some.matches_method(Some(b"\xff")));
        assert!(!some.matches_method(None));
    }
}
