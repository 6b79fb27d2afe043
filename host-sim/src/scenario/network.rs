//! The `gateway`, `clusters` and `upstream` parts of a scenario, made a network. It must not know what is bound from outside.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::file::{RawGateway, RawScenario};
use super::script::Script;
use crate::host::network::Network;

/// The network without services that a caller binds.
#[derive(Debug, Clone)]
pub(crate) struct NetworkPlan {
    clusters: Option<Vec<String>>,
    pub(super) gateway: Option<Script>,
    pub(super) upstream: Option<Script>,
}

impl NetworkPlan {
    pub(crate) fn plan(raw: &RawScenario) -> Result<Self, String> {
        let gateway = match &raw.gateway {
            RawGateway::Rules(rules) => Some(Script::plan(rules)?),
            RawGateway::InProcess => None,
        };
        let upstream =
            if raw.upstream.is_empty() { None } else { Some(Script::plan(&raw.upstream)?) };
        Ok(Self { clusters: raw.clusters.clone(), gateway, upstream })
    }

    /// Whether the file leaves its gateway to the caller.
    pub(crate) fn needs_service(&self) -> bool {
        self.gateway.is_none()
    }

    pub(crate) fn build(&self) -> Network {
        let known = self.clusters.as_ref().map(|clusters| clusters.iter().cloned().collect());
        let mut network = Network::new(known);
        if let Some(upstream) = &self.upstream {
            network.bind_upstream(Box::new(upstream.clone()));
        }
        network
    }

    /// The scripted gateway goes last, so that services bound by name come first.
    pub(crate) fn bind_gateway(&self, network: &mut Network) {
        if let Some(gateway) = &self.gateway {
            network.bind(None, Box::new(gateway.clone()));
        }
    }
}

struct GatewayVisitor;

impl<'de> Visitor<'de> for GatewayVisitor {
    type Value = RawGateway;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rules, or in-process")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawGateway, E> {
        match text {
            "in-process" => Ok(RawGateway::InProcess),
            _ => Err(E::custom(format!(
                "{text:?} is no gateway; write a list of rules, or in-process"
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawGateway, A::Error> {
        let mut rules = Vec::new();
        while let Some(rule) = seq.next_element()? {
            rules.push(rule);
        }
        Ok(RawGateway::Rules(rules))
    }
}

impl<'de> Deserialize<'de> for RawGateway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GatewayVisitor)
    }
}
