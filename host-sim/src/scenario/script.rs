//! A service that answers by rules. It must not know which cluster it stands behind.

use serde_saphyr::Spanned;

use super::rules::{Pattern, RawAnswer, RawRule};
use super::template::Template;
use crate::abi::pairs::Pairs;
use crate::host::headers::HeaderMap;
use crate::host::service::{Answer, Chunk, Fault, Outcome, Reply, Service, ServiceRequest};

/// Rules with what is left of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    on: Option<Pattern>,
    cluster: Option<String>,
    effect: Effect,
    after_ns: u64,
    is_early: bool,
    left: Option<u32>,
    tries: u64,
}

#[derive(Debug, Clone)]
enum Effect {
    Answer(AnswerTemplate),
    Fault(Fault),
}

#[derive(Debug, Clone)]
struct AnswerTemplate {
    status: u16,
    headers: Vec<(Vec<u8>, Template)>,
    body: Template,
    chunks: Vec<(u64, Template)>,
    trailers: Option<HeaderMap>,
}

impl Script {
    /// The text of a problem names the rule's line.
    pub(crate) fn plan(raw: &[Spanned<RawRule>]) -> Result<Self, String> {
        let rules: Result<Vec<_>, String> = raw
            .iter()
            .map(|rule| {
                Rule::plan(&rule.value)
                    .map_err(|problem| format!("line {}: {problem}", rule.referenced.line()))
            })
            .collect();
        Ok(Self { rules: rules? })
    }

    /// The fault that meets every request to this cluster, if it is one and the same.
    pub(super) fn fate(&self, cluster: Option<&str>) -> Option<Fault> {
        let is_for = |rule: &&Rule| rule.cluster.is_none() || rule.cluster.as_deref() == cluster;
        let mut faults = self.rules.iter().filter(is_for).map(|rule| match rule.effect {
            Effect::Fault(fault) => Some(fault),
            Effect::Answer(_) => None,
        });
        let first = faults.next()?;
        faults.all(|fault| fault == first).then_some(first)?
    }
}

impl Rule {
    fn plan(raw: &RawRule) -> Result<Self, String> {
        let effect = match (&raw.answer, raw.fault) {
            (Some(answer), None) => Effect::Answer(AnswerTemplate::plan(answer)?),
            (None, Some(fault)) => Effect::Fault(fault),
            _ => return Err("a rule needs exactly one of answer and fault".to_owned()),
        };
        Ok(Self {
            on: raw.on.clone(),
            cluster: raw.cluster.clone(),
            effect,
            after_ns: raw.after.ns,
            is_early: raw.early,
            left: raw.times,
            tries: raw.tries.unwrap_or(1),
        })
    }

    fn answer(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        self.left = self.left.map(|left| left.saturating_sub(1));
        let outcome = match &self.effect {
            Effect::Answer(answer) => Outcome::Answer(answer.render(now_unix_ns, request)),
            Effect::Fault(fault) => Outcome::Fault(*fault),
        };
        Reply { after_ns: self.after_ns, outcome, tries: self.tries }
    }

    fn fits(&self, request: &ServiceRequest) -> bool {
        self.left != Some(0)
            && self.cluster.as_ref().is_none_or(|cluster| *cluster == request.cluster)
            && self.on.as_ref().is_none_or(|pattern| pattern.fits(request))
    }
}

impl AnswerTemplate {
    fn plan(raw: &RawAnswer) -> Result<Self, String> {
        let headers: Result<Vec<_>, String> = raw
            .headers
            .0
            .pairs()
            .iter()
            .map(|(key, value)| Ok((key.clone(), Template::parse(value)?)))
            .collect();
        let mut chunks = Vec::new();
        for chunk in &raw.chunks {
            let is_late = chunks.last().is_none_or(|(last_ns, _)| *last_ns <= chunk.after.ns);
            if !is_late {
                return Err("answer: chunks must stand in order of time".to_owned());
            }
            chunks.push((chunk.after.ns, Template::parse(&chunk.data.0)?));
        }
        Ok(Self {
            chunks,
            status: raw.status,
            headers: headers?,
            body: Template::parse(&raw.body.0)?,
            trailers: raw.trailers.as_ref().map(|trailers| trailers.0.clone()),
        })
    }

    fn render(&self, now_unix_ns: u64, request: &ServiceRequest) -> Answer {
        let headers: Pairs = self
            .headers
            .iter()
            .map(|(key, value)| (key.clone(), value.render(now_unix_ns, request)))
            .collect();
        Answer {
            status: self.status,
            headers: HeaderMap::from_pairs(headers),
            body: self.body.render(now_unix_ns, request),
            chunks: self
                .chunks
                .iter()
                .map(|(after_ns, data)| Chunk {
                    after_ns: *after_ns,
                    data: data.render(now_unix_ns, request),
                })
                .collect(),
            trailers: self.trailers.clone(),
        }
    }
}

impl Service for Script {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        match self.rules.iter_mut().find(|rule| rule.fits(request)) {
            Some(rule) => rule.answer(now_unix_ns, request),
            None => Reply::now(Answer::new(404, "no rule of the scenario fits this request")),
        }
    }

    fn call_early(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Option<Reply> {
        let rule = self.rules.iter_mut().find(|rule| rule.fits(request))?;
        rule.is_early.then(|| rule.answer(now_unix_ns, request))
    }
}
