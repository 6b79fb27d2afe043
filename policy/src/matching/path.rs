//! Owns path patterns: exact, below a prefix, templates, and regular expressions.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::regex::Regex;
use crate::canonical::canonical;

/// A pattern over a path without its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// Every request, also `OPTIONS *` and one without a path.
    Any,
    /// Segment by segment.
    Segments {
        /// What each segment must be, from the first `/` on. A closing slash is an empty last one.
        segments: Vec<Segment>,
        /// Whether everything below falls under the pattern, too: `/api/**` takes in `/api` and
        /// `/api/x`, and not `/apis`.
        below: bool,
    },
    /// The whole path fits an expression.
    Regex(Regex),
}

/// What one segment of a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text to the letter.
    Literal(String),
    /// Any text but none: `{id}`.
    Named(String),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPattern {
    /// Does not begin with `/`.
    NoSlash,
    /// Holds `*` elsewhere than in a closing `/**`.
    Star,
    /// Holds `{` or `}` otherwise than as `{name}`, a whole segment of 1 to 32 of `a-z 0-9 _`, each
    /// name once.
    Template,
    /// Holds `?`, `#`, a space, a control character or a byte outside ASCII.
    Character,
    /// No request's path has this spelling once it is normalised, so nothing would ever match.
    NotCanonical,
}

const NAME_LEN_MAX: usize = 32;

// === impl PathPattern ===

impl PathPattern {
    /// Reads `/exact`, `/prefix/**`, `/orders/{id}` or `/**`.
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
        if literal.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'?' | b'#')) {
            return Err(BadPattern::Character);
        }
        if below && literal.is_empty() {
            return Ok(Self::Any);
        }
        let mut segments: Vec<Segment> = Vec::new();
        for text in literal.split('/').skip(1) {
            let segment = segment(text)?;
            if matches!(segment, Segment::Named(_)) && segments.contains(&segment) {
                return Err(BadPattern::Template);
            }
            segments.push(segment);
        }
        // A name stands for any text, so only what is written out must be in its one spelling.
        let plain = literal.replace(['{', '}'], "");
        let escaped_slash = ["%2F", "%5C", "%00"].iter().any(|code| plain.contains(code));
        let open = below && plain.ends_with('/');
        if *canonical(plain.as_bytes()) != *plain.as_bytes() || escaped_slash || open {
            return Err(BadPattern::NotCanonical);
        }
        Ok(Self::Segments { segments, below })
    }

    /// The named parts of a template with their places among the segments, from 0.
    pub fn named(&self) -> impl Iterator<Item = (usize, &str)> {
        let segments: &[Segment] = match self {
            Self::Segments { segments, .. } => segments,
            Self::Any | Self::Regex(_) => &[],
        };
        segments.iter().enumerate().filter_map(|(index, segment)| match segment {
            Segment::Named(name) => Some((index, name.as_str())),
            Segment::Literal(_) => None,
        })
    }

    /// Whether a path, in its one spelling, falls under the pattern; `None` is a request without.
    /// The router answers the same for many patterns at once; this is what it is compared with.
    pub fn matches(&self, path: Option<&[u8]>) -> bool {
        let (segments, below) = match (self, path) {
            (Self::Any, _) => return true,
            (_, None) => return false,
            (Self::Regex(regex), Some(path)) => return regex.matches(path),
            (Self::Segments { segments, below }, Some(_)) => (segments, *below),
        };
        let Some(rest) = path.and_then(|path| path.strip_prefix(b"/")) else {
            return false;
        };
        let mut parts = rest.split(|&b| b == b'/');
        segments.iter().all(|segment| parts.next().is_some_and(|part| segment.matches(part)))
            && (below || parts.next().is_none())
    }
}

fn segment(text: &str) -> Result<Segment, BadPattern> {
    if !text.contains(['{', '}']) {
        return Ok(Segment::Literal(text.to_owned()));
    }
    let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let name = name.ok_or(BadPattern::Template)?;
    let sound = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if sound { Ok(Segment::Named(name.to_owned())) } else { Err(BadPattern::Template) }
}

// === impl Segment ===

impl Segment {
    fn matches(&self, part: &[u8]) -> bool {
        match self {
            Self::Literal(text) => part == text.as_bytes(),
            Self::Named(_) => !part.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_in_what_they_say() {
        let rows: [(&str, &[&str], &[&str]); 7] = [
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
            (
                "/v1/orders/{id}",
                &["/v1/orders/7", "/v1/orders/a%20b", "/v1//orders/7", "/v1/orders/7;p?q"],
                &["/v1/orders", "/v1/orders/", "/v1/orders/7/", "/v1/orders/7/x", "/v1/x/7"],
            ),
            (
                "/{tenant}/files/**",
                &["/a/files", "/a/files/", "/a/files/b/c"],
                &["/files", "/a/b/files", "//files"],
            ),
            ("/a/{x}/", &["/a/b/"], &["/a/b", "/a//", "/a/b/c"]),
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
        assert!(!PathPattern::parse("/x/**").expect("a pattern").matches(None));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let rows = [
            ("", BadPattern::NoSlash),
            ("api", BadPattern::NoSlash),
            ("/a*", BadPattern::Star),
            ("/**/x", BadPattern::Star),
            ("/a/x{id}", BadPattern::Template),
            ("/a/{}", BadPattern::Template),
            ("/a/{Id}", BadPattern::Template),
            ("/a/{id", BadPattern::Template),
            ("/{id}/b/{id}", BadPattern::Template),
            ("/a?b", BadPattern::Character),
            ("/a b", BadPattern::Character),
            ("/ä", BadPattern::Character),
            ("/a//b", BadPattern::NotCanonical),
            ("/{a}//b", BadPattern::NotCanonical),
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
}
