//! Owns the making and the listing of keys. Shows public keys only.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};
use tidegate_policy::audit::hash::to_base64;
use tidegate_policy::audit::note::NoteKey;
use tidegate_policy::audit::record::KeyVersion;
use zeroize::Zeroizing;

use super::Generate;
use crate::audit::keys::{PREFIX, SigningKeys};
use crate::settings::Environment;

/// Makes a key.
pub fn generate(what: &Generate) -> Result<(), String> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| format!("no randomness: {error}"))?;
    let key = SigningKey::from_bytes(&seed);
    let public = key.verifying_key().to_bytes();
    let shown = match (&what.version, &what.checkpoint_name) {
        (_, Some(name)) => NoteKey::new(name, public)
            .map_err(|bad| format!("--checkpoint-name: {bad}"))?
            .to_string(),
        (version, None) => {
            let version = version.as_deref().unwrap_or_default();
            let version = KeyVersion::new(version)
                .ok_or_else(|| format!("--version {version:?} is none: write v1, v2, …"))?;
            format!(r#"{{"version": "{version}", "public": "{}"}}"#, to_base64(&public))
        }
    };
    // Without the public key beside it: the older form, which every program reads.
    let pair = KeypairBytes { secret_key: *seed, public_key: None };
    let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(|error| format!("no PEM: {error}"))?;
    let named = |error| format!("--out {}: {error}", what.out.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&what.out)
        .map_err(named)?;
    file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(named)?;
    println!("{shown}");
    Ok(())
}

/// Lists the keys of the environment.
pub fn list(environment: &Environment) -> Result<(), String> {
    let keys = SigningKeys::from_environment(environment).map_err(|all| all.join("\n"))?;
    if keys.is_empty() {
        return Err(format!("no key: set {PREFIX}_V1 or {PREFIX}_V1_FILE"));
    }
    let signing = keys.signing_version();
    for (version, public, revoked) in keys.public() {
        let state = match (revoked, signing == Some(version)) {
            (true, _) => "revoked",
            (false, true) => "signs",
            (false, false) => "verifies",
        };
        println!("{:<11} {}  {state}", version.to_string(), to_base64(&public));
    }
    Ok(())
}
