//! A scenario as another runner reads it: the same file against a real Envoy. It must not run anything.

use super::plan::Scenario;
use crate::host::service::{Answer, Fault, Reply, Service, ServiceRequest};
use crate::world::timeline::{Action, ClientAct};

/// One request of a client with everything the client does to it, in order.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// The client's name.
    pub client: String,
    /// 1 for the client's first request.
    pub nth: usize,
    /// What it does and when, since the run began.
    pub steps: Vec<(u64, ClientAct)>,
}

/// An update of the listener with another configuration of one plugin.
#[derive(Debug, Clone)]
pub struct UpdateView {
    /// When, since the run began.
    pub at_ns: u64,
    /// The plugin's place in the chain.
    pub plugin: usize,
    /// Its new configuration.
    pub config: Vec<u8>,
}

impl Scenario {
    /// Every request in the order of announcement.
    pub fn clients(&self) -> Vec<ClientView> {
        let announced = self.timeline.announced.iter().enumerate();
        let view = announced.map(|(exchange, announced)| ClientView {
            client: announced.client.clone(),
            nth: announced.nth,
            steps: self.steps_of(exchange),
        });
        view.collect()
    }

    fn steps_of(&self, wanted: usize) -> Vec<(u64, ClientAct)> {
        let act = |action: &Action| match action {
            Action::Client { exchange, act } if *exchange == wanted => Some(act.clone()),
            Action::Client { .. } | Action::Update { .. } => None,
        };
        let steps = self.timeline.steps.iter();
        steps.filter_map(|step| Some((step.at_ns, act(&step.action)?))).collect()
    }

    /// Every update of the listener, in order.
    pub fn updates(&self) -> Vec<UpdateView> {
        let update = |at_ns: u64, action: &Action| match action {
            Action::Update { plugin, config } => {
                Some(UpdateView { at_ns, plugin: *plugin, config: config.clone() })
            }
            Action::Client { .. } => None,
        };
        let steps = self.timeline.steps.iter();
        steps.filter_map(|step| update(step.at_ns, &step.action)).collect()
    }

    /// What the file scripts behind its clusters; none for `in-process`.
    pub fn gateway(&self) -> Option<Box<dyn Service + Send>> {
        self.network.gateway.clone().map(|script| Box::new(script) as _)
    }

    /// What the file scripts behind the route.
    pub fn upstream(&self) -> Box<dyn Service + Send> {
        match &self.network.upstream {
            Some(script) => Box::new(script.clone()),
            None => Box::new(Default200),
        }
    }

    /// The fault that every request to a cluster meets, if it is one and the same.
    pub fn fate_of_cluster(&self, cluster: &str) -> Option<Fault> {
        self.network.gateway.as_ref()?.fate(Some(cluster))
    }

    /// The fault that every request to the upstream meets, if it is one and the same.
    pub fn fate_of_upstream(&self) -> Option<Fault> {
        self.network.upstream.as_ref()?.fate(None)
    }
}

struct Default200;

impl Service for Default200 {
    fn call(&mut self, _: u64, _: &ServiceRequest) -> Reply {
        Reply::now(Answer::new(200, "ok"))
    }
}
