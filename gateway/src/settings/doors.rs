//! Owns who may come in by the settings: where a secret comes from, and that a door without one is on this
//! machine. Reads no secret.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::knob::{Knob, Resolver};
use crate::secret::{Secret, SecretSource, shown};

/// `--dev` is for one machine: a listener without a token that others reach is no development.
pub fn refuse_open_door(
    resolver: &mut Resolver<'_>,
    knob: &Knob,
    address: Option<SocketAddr>,
    token: Option<&SecretSource>,
    remedy: &str,
) {
    // Canonical, because `::ffff:127.0.0.1` is this machine too.
    let Some(address) = address.filter(|a| !a.ip().to_canonical().is_loopback()) else { return };
    if token.is_none() {
        resolver.problem(format!(
            "{} is {address}, which other machines reach, and --dev (TIDEGATE_DEV) accepts every caller there: configure a token with {remedy}, or listen on 127.0.0.1",
            knob.name(),
        ));
    }
}

/// A secret's source: the variable's value or the flag's file, not both.
pub fn secret(
    resolver: &mut Resolver<'_>,
    variable: &'static str,
    flag: &'static str,
    file: Option<PathBuf>,
) -> Option<SecretSource> {
    let value = resolver.environment().get(variable).map(Secret::new);
    match (value, file) {
        (Some(_), Some(path)) => {
            resolver.problem(format!(
                "{flag} is {} and {variable} is set too: give one of them",
                shown(&path.to_string_lossy())
            ));
            None
        }
        (Some(secret), None) if secret.reveal().is_empty() => {
            resolver.problem(format!("{variable} is empty: write the secret into it or unset it"));
            Some(SecretSource::Value { variable, secret })
        }
        (Some(secret), None) => Some(SecretSource::Value { variable, secret }),
        (None, Some(path)) => Some(SecretSource::File { flag, path }),
        (None, None) => None,
    }
}
