//! Owns the operators' commands on shared state: their paths, the role that each asks for, their
//! bodies and answers. Knows no tokens; each command that is carried out is audited by its listener.

use http::{Method, StatusCode};
use serde::Deserialize;
use tidegate_policy::reason::Reason;
use tidegate_policy::scope::{KeyFormat, Tenant};

use super::answer::{self, Answer};
use crate::access::Role;
use crate::service::ServiceSettings;
use crate::store::{StoreFailure, StoreRole, Stores, Temperature};

const JSON: &str = "application/json";

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Makes the region cold or declares it warm.
    Region,
}

/// What the audit trail says of a command; holds no subjects.
#[derive(Debug)]
pub struct Done {
    /// The answer.
    pub answer: Answer,
    /// What was asked for.
    pub detail: String,
    /// A reason's text, or `ok`.
    pub outcome: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Cold,
    Warm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionBody {
    temperature: Told,
}

// === impl Command ===

impl Command {
    /// The command at a path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/region" => Some(Self::Region),
            _ => None,
        }
    }

    /// The method that it takes.
    pub fn method(self) -> Method {
        match self {
            Self::Region => Method::POST,
        }
    }

    /// Who may.
    pub fn role(self) -> Role {
        match self {
            // It changes every limit of the region at once.
            Self::Region => Role::Admin,
        }
    }

    /// Carries it out.
    pub async fn run(self, body: &[u8], settings: &ServiceSettings, stores: &Stores) -> Done {
        match self {
            Self::Region => region(body, settings, stores).await,
        }
    }
}

async fn region(body: &[u8], settings: &ServiceSettings, stores: &Stores) -> Done {
    let told = match serde_json::from_slice(body) {
        Ok(RegionBody { temperature }) => temperature,
        Err(error) => {
            return bad(
                "region",
                &format!(
                    "{error}: send {{\"temperature\": \"cold\"}} or {{\"temperature\": \"warm\"}}"
                ),
            );
        }
    };
    let (temperature, text) = match told {
        Told::Cold => (Temperature::Cold, "cold"),
        Told::Warm => (Temperature::Warm, "warm"),
    };
    let scope = settings.scope(Tenant::None, KeyFormat::default());
    let set = stores.of(StoreRole::Regional).set_region(&scope, temperature).await;
    let what = format!("region {} {}: {text}", settings.region, settings.environment);
    done(
        what,
        set.map(|()| format!(r#"{{"region":"{}","temperature":"{text}"}}"#, settings.region)),
    )
}

fn done(detail: String, outcome: Result<String, StoreFailure>) -> Done {
    match outcome {
        Ok(text) => {
            Done { answer: answer::plain(StatusCode::OK, JSON, text), detail, outcome: "ok" }
        }
        Err(failure) => {
            tracing::error!(%failure, detail, "an operator's command failed");
            let reason = failure.reason();
            let told = "the store did not carry it out; see the log of the gateway";
            let answer = answer::problem(StatusCode::SERVICE_UNAVAILABLE, reason, told, None);
            Done { answer, detail, outcome: reason.as_str() }
        }
    }
}

fn bad(what: &str, detail: &str) -> Done {
    let reason = Reason::BadMessage;
    let answer = answer::problem(StatusCode::BAD_REQUEST, reason, detail, None);
    Done { answer, detail: format!("{what}: malformed"), outcome: reason.as_str() }
}
