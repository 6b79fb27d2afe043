//! Owns the settings of TLS and how they depend on one another. Opens no file.

use std::path::PathBuf;

use super::cli::{RedisTlsArgs, TlsArgs};
use super::knob::{self, Knob, Resolver};
use crate::secret::SecretSource;
use crate::store::redis::place::Place;
use crate::store::redis::tls::RedisTls;
use crate::tls::TlsFiles;

/// The listeners' files: the filter's, then the operators'. `None` is plain HTTP.
pub type Listeners = (Option<TlsFiles>, Option<TlsFiles>);

/// `None` only after the resolver has noted why.
pub fn listeners(arguments: TlsArgs, resolver: &mut Resolver<'_>) -> Option<Listeners> {
    let certificate = file(resolver, &knob::TLS_CERT, arguments.tls_cert);
    let key = file(resolver, &knob::TLS_KEY, arguments.tls_key);
    let client_ca = file(resolver, &knob::TLS_CLIENT_CA, arguments.tls_client_ca);
    let admin = resolver.switch(&knob::ADMIN_TLS, arguments.admin_tls)?;
    let pair = pair(resolver, (&knob::TLS_CERT, certificate), (&knob::TLS_KEY, key))?;
    let Some((certificate, key)) = pair else {
        let mut sound = true;
        let waiting = [(client_ca.is_some(), &knob::TLS_CLIENT_CA), (admin, &knob::ADMIN_TLS)];
        for (_, knob) in waiting.iter().filter(|(given, _)| *given) {
            sound = false;
            resolver.problem(format!(
                "{} is given without a certificate of the gateway's own: add {} and {}",
                knob.name(),
                knob::TLS_CERT.name(),
                knob::TLS_KEY.name(),
            ));
        }
        return sound.then_some((None, None));
    };
    let data = TlsFiles { certificate, key, client_ca };
    let operators = admin.then(|| data.without_client_ca());
    Some((Some(data), operators))
}

/// `None` only after the resolver has noted why.
pub fn redis(
    arguments: RedisTlsArgs,
    address: Option<&Place>,
    resolver: &mut Resolver<'_>,
) -> Option<RedisTls> {
    let ca = file(resolver, &knob::REDIS_TLS_CA, arguments.redis_tls_ca);
    let certificate = file(resolver, &knob::REDIS_TLS_CERT, arguments.redis_tls_cert);
    let key = file(resolver, &knob::REDIS_TLS_KEY, arguments.redis_tls_key);
    let own = pair(resolver, (&knob::REDIS_TLS_CERT, certificate), (&knob::REDIS_TLS_KEY, key))?;
    let given = if ca.is_some() { &knob::REDIS_TLS_CA } else { &knob::REDIS_TLS_CERT };
    if (ca.is_some() || own.is_some()) && !address.is_some_and(Place::is_tls) {
        resolver.problem(format!(
            "{} is given, but no connection to Redis would be under TLS: write {} with rediss://",
            given.name(),
            knob::REDIS_URL.name(),
        ));
        return None;
    }
    Some(RedisTls { ca, own })
}

fn file(resolver: &mut Resolver<'_>, knob: &Knob, flag: Option<String>) -> Option<SecretSource> {
    let path: PathBuf = resolver.maybe(knob, flag, knob::path)?;
    Some(SecretSource::File { flag: knob.flag, path })
}

type Given<'a> = (&'a Knob, Option<SecretSource>);

/// Both or neither; `None` after a problem was noted.
fn pair(
    resolver: &mut Resolver<'_>,
    certificate: Given<'_>,
    key: Given<'_>,
) -> Option<Option<(SecretSource, SecretSource)>> {
    let (given, missing, what) = match (certificate, key) {
        ((_, Some(certificate)), (_, Some(key))) => return Some(Some((certificate, key))),
        ((_, None), (_, None)) => return Some(None),
        ((given, Some(_)), (missing, None)) => (given, missing, "the certificate's private key"),
        ((missing, None), (given, Some(_))) => (given, missing, "the key's certificate"),
    };
    resolver.problem(format!(
        "{} is given without {}: name the file with {what}",
        given.name(),
        missing.name(),
    ));
    None
}
