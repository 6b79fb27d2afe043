//! Owns who may call: the filter's tokens, and the administrators' tokens with their actors and
//! roles. Knows neither HTTP nor where secrets are kept.
//!
//! Tokens are kept and compared as SHA-256 digests, in constant time and always against all of
//! them, so that neither content nor length nor position shows in the time it takes. Source:
//! product rows H4 and H5.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::secret::Secret;

/// What an administrator may do; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads metrics and status.
    Viewer,
    /// Also acts on single objects.
    Operator,
    /// Also changes who may do what.
    Admin,
}

/// The filter's tokens: several during a rotation, all of them good.
pub struct FilterTokens(Vec<TokenDigest>);

/// The administrators' tokens.
pub struct AdminTokens(Vec<AdminToken>);

struct AdminToken {
    actor: String,
    role: Role,
    digest: TokenDigest,
}

#[derive(Clone)]
struct TokenDigest([u8; 32]);

// === impl Role ===

impl Role {
    /// The role as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl FilterTokens ===

impl FilterTokens {
    /// One token per line.
    pub fn parse(secret: &Secret) -> Result<Self, String> {
        entries(secret, &['\n'])
            .map(|(place, line)| digest(place, line))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `token` is one of them.
    pub fn accept(&self, token: &[u8]) -> bool {
        let asked = TokenDigest::of(token);
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.same(&asked));
        found.into()
    }
}

// === impl AdminTokens ===

impl AdminTokens {
    /// `actor:role:token` per line, or separated by `;`.
    pub fn parse(secret: &Secret) -> Result<Self, String> {
        let mut tokens: Vec<AdminToken> = Vec::new();
        for (place, entry) in entries(secret, &['\n', ';']) {
            let token = admin(place, entry)?;
            let who = |token: &AdminToken| (token.actor.clone(), token.role);
            // Which of them acted nobody could say.
            let shared = tokens.iter().find(|known| {
                bool::from(known.digest.same(&token.digest)) && who(known) != who(&token)
            });
            if let Some(other) = shared {
                return Err(format!(
                    "entry {place}: its token is that of {}:{}, too: give each actor and role a token of its own",
                    other.actor, other.role
                ));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// The actor and role behind `token`, if it is one of them.
    pub fn find(&self, token: &[u8]) -> Option<(&str, Role)> {
        let asked = TokenDigest::of(token);
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.same(&asked)) {
                found = Some((known.actor.as_str(), known.role));
            }
        }
        found
    }
}

fn entries<'a>(
    secret: &'a Secret,
    separators: &'a [char],
) -> impl Iterator<Item = (usize, &'a str)> {
    let parts = secret.reveal().split(separators).map(str::trim);
    parts.filter(|part| !part.is_empty()).enumerate().map(|(index, part)| (index + 1, part))
}

fn admin(place: usize, entry: &str) -> Result<AdminToken, String> {
    let mut parts = entry.splitn(3, ':');
    let (Some(actor), Some(role), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("entry {place} is no actor:role:token"));
    };
    let sound_actor = !actor.is_empty()
        && actor.len() <= 64
        && actor
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@'));
    if !sound_actor {
        return Err(format!("entry {place}: the actor must be 1 to 64 of a-z A-Z 0-9 . _ - @"));
    }
    let Some(role) = Role::from_text(role) else {
        return Err(format!("entry {place}: the role must be viewer, operator or admin"));
    };
    Ok(AdminToken { actor: actor.to_owned(), role, digest: digest(place, token)? })
}

fn digest(place: usize, token: &str) -> Result<TokenDigest, String> {
    if token.is_empty() {
        return Err(format!("entry {place}: the token is empty"));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("entry {place}: a token has no spaces and only visible ASCII"));
    }
    Ok(TokenDigest::of(token.as_bytes()))
}

// === impl TokenDigest ===

impl TokenDigest {
    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn same(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_token_during_a_rotation() {
        let tokens =
            FilterTokens::parse(&Secret::new("old-token\n\n new-token \n")).expect("sound");
        let accepted: Vec<_> = ["old-token", "new-token", "old-toke", "", "old-token\nnew-token"]
            .map(|token| tokens.accept(token.as_bytes()))
            .into();
        assert_eq!(accepted, [true, true, false, false, false]);
    }

    #[test]
    fn an_admin_token_names_its_actor_and_role() {
        let tokens =
            AdminTokens::parse(&Secret::new("ann:viewer:a:b;bo:admin:c\n")).expect("sound");
        assert_eq!(tokens.find(b"a:b"), Some(("ann", Role::Viewer)));
        assert_eq!(tokens.find(b"c"), Some(("bo", Role::Admin)));
        assert_eq!(tokens.find(b"a"), None);
        assert!(AdminTokens::parse(&Secret::new("ann:viewer:a;ann:viewer:a")).is_ok(), "the same");
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Viewer);
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_the_token() {
        let rows = [
            ("ann:viewer", "entry 1 is no actor:role:token"),
            (
                "ann:viewer:t;bo:root:t0psecret",
                "entry 2: the role must be viewer, operator or admin",
            ),
            ("a b:viewer:t0psecret", "entry 1: the actor must be 1 to 64 of a-z A-Z 0-9 . _ - @"),
            ("ann:viewer:", "entry 1: the token is empty"),
            ("ann:viewer:t0p secret", "entry 1: a token has no spaces and only visible ASCII"),
            (
                "ann:viewer:t0psecret;bo:admin:other;cy:admin:t0psecret",
                "entry 3: its token is that of ann:viewer, too: give each actor and role a token of its own",
            ),
            (
                "ann:viewer:t0psecret;ann:admin:t0psecret",
                "entry 2: its token is that of ann:viewer, too: give each actor and role a token of its own",
            ),
        ];
        for (text, expected) in rows {
            let error = AdminTokens::parse(&Secret::new(text)).err();
            assert_eq!(error.as_deref(), Some(expected), "{text}");
        }
    }
}
