//! Owns which policies a request falls under, fact by fact: a path decides first, so that a
//! request that matches nothing costs its reader one fact and no more. The patterns of all policies
//! are one tree, so that a thousand policies cost a request no more than ten.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::canonical::canonical;
use crate::config::{Apply, Config, Policy};
use crate::matching::{HostPattern, Matcher, PathPattern, Regex, Segment, canonical_host};
use crate::needs::Needs;

/// The patterns of all policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
    /// The leaf of `/**`, which also takes requests without a path.
    any: Option<usize>,
    /// An expression is tried on every request: it has no place in a tree.
    regexes: Vec<(Regex, usize)>,
}

/// One segment deep in the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    literals: BTreeMap<Box<[u8]>, usize>,
    /// `{name}`: any segment that is not empty.
    named: Option<usize>,
    /// Paths that end here.
    exact: Option<usize>,
    /// Paths that end here or below.
    below: Option<usize>,
}

/// The policies of one pattern, by host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Leaf {
    everywhere: Vec<usize>,
    hosts: BTreeMap<Box<[u8]>, Vec<usize>>,
    domains: BTreeMap<Box<[u8]>, Vec<usize>>,
    /// Of all of them.
    needs: Needs,
}

/// What a request's path leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    leaves: Vec<usize>,
}

/// The policies that a request falls under, as far as its facts are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matched {
    policies: Vec<usize>,
}

// === impl Router ===

impl Router {
    /// Puts the patterns of policies together; their numbers are their places in the iterator.
    pub fn new<'m>(matchers: impl Iterator<Item = (&'m Matcher, Needs)>) -> Self {
        let mut router = Self {
            nodes: [Node::default()].into(),
            leaves: Vec::new(),
            any: None,
            regexes: Vec::new(),
        };
        for (policy, (matcher, needs)) in matchers.enumerate() {
            let leaf = router.leaf_of(&matcher.path);
            if let Some(leaf) = router.leaves.get_mut(leaf) {
                leaf.add(policy, matcher.hosts.as_deref());
                leaf.needs = leaf.needs.and(needs);
            }
        }
        router
    }

    fn leaf_of(&mut self, pattern: &PathPattern) -> usize {
        let next = self.leaves.len();
        let leaf = match pattern {
            PathPattern::Any => *self.any.get_or_insert(next),
            PathPattern::Regex(regex) => {
                match self.regexes.iter().find(|(known, _)| known == regex) {
                    Some((_, leaf)) => *leaf,
                    None => {
                        self.regexes.push((regex.clone(), next));
                        next
                    }
                }
            }
            PathPattern::Segments { segments, below } => {
                let node = self.node_of(segments);
                match self.nodes.get_mut(node) {
                    Some(node) if *below => *node.below.get_or_insert(next),
                    Some(node) => *node.exact.get_or_insert(next),
                    None => next,
                }
            }
        };
        if leaf == next {
            self.leaves.push(Leaf::default());
        }
        leaf
    }

    fn node_of(&mut self, segments: &[Segment]) -> usize {
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return at;
            };
            at = match segment {
                Segment::Literal(text) => {
                    *node.literals.entry(text.as_bytes().into()).or_insert(next)
                }
                Segment::Named(_) => *node.named.get_or_insert(next),
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        at
    }

    fn candidates(&self, path: Option<&[u8]>) -> Candidates {
        let mut leaves: Vec<usize> = self.any.into_iter().collect();
        let Some(path) = path else {
            return Candidates { leaves };
        };
        leaves.extend(self.regexes.iter().filter(|(r, _)| r.matches(path)).map(|(_, leaf)| *leaf));
        if let Some(rest) = path.strip_prefix(b"/") {
            self.walk(rest, &mut leaves);
        }
        Candidates { leaves }
    }

    /// Each node is reached by one way only, so no path costs more than the tree is large.
    fn walk(&self, path: &[u8], leaves: &mut Vec<usize>) {
        // Only where a segment leads two ways does one of them have to wait.
        let mut waiting: Vec<(usize, Option<&[u8]>)> = Vec::new();
        let mut next = Some((0, Some(path)));
        while let Some((node, rest)) = next.take().or_else(|| waiting.pop()) {
            let Some(node) = self.nodes.get(node) else {
                continue;
            };
            leaves.extend(node.below);
            let Some(rest) = rest else {
                leaves.extend(node.exact);
                continue;
            };
            if node.literals.is_empty() && node.named.is_none() {
                continue;
            }
            let (segment, after) = match rest.iter().position(|&b| b == b'/') {
                Some(slash) => (rest.get(..slash), rest.get(slash.saturating_add(1)..)),
                None => (Some(rest), None),
            };
            let segment = segment.unwrap_or_default();
            next = node.literals.get(segment).map(|&next| (next, after));
            let named = node.named.filter(|_| !segment.is_empty()).map(|next| (next, after));
            match next {
                Some(_) => waiting.extend(named),
                None => next = named,
            }
        }
    }
}

// === impl Leaf ===

impl Leaf {
    fn add(&mut self, policy: usize, hosts: Option<&[HostPattern]>) {
        let Some(hosts) = hosts else {
            self.everywhere.push(policy);
            return;
        };
        for host in hosts {
            let (map, name) = match host {
                HostPattern::Exact(name) => (&mut self.hosts, name),
                HostPattern::Below(name) => (&mut self.domains, name),
            };
            map.entry(name.as_bytes().into()).or_default().push(policy);
        }
    }

    /// Whether it matters which host a request is for.
    fn has_hosts(&self) -> bool {
        !self.hosts.is_empty() || !self.domains.is_empty()
    }

    fn policies(&self, host: Option<&[u8]>, policies: &mut Vec<usize>) {
        policies.extend(&self.everywhere);
        let Some(host) = host else {
            return;
        };
        policies.extend(self.hosts.get(host).into_iter().flatten());
        let dots = host.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        for (dot, _) in dots {
            let domain = host.get(dot.saturating_add(1)..).unwrap_or_default();
            policies.extend(self.domains.get(domain).into_iter().flatten());
        }
    }
}

// === impl Config ===

impl Config {
    /// What a request's path leads to; `None` is a request without a `:path`.
    pub fn on_path(&self, path: Option<&[u8]>) -> Candidates {
        let path = path.map(canonical);
        self.router.candidates(path.as_deref())
    }
}

// === impl Candidates ===

impl Candidates {
    /// Whether nothing matches, so that the request passes.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// What has to be read before it is known which of them apply, and for whom.
    pub fn needs(&self, config: &Config) -> Needs {
        let leaves = self.leaves.iter().filter_map(|&leaf| config.router.leaves.get(leaf));
        leaves.fold(Needs::default(), |needs, leaf| needs.and(leaf.needs))
    }

    /// The policies that are left once the host (`:authority`) is known, in their order.
    pub fn on_host(&self, config: &Config, authority: Option<&[u8]>) -> Matched {
        let leaves = || self.leaves.iter().filter_map(|&leaf| config.router.leaves.get(leaf));
        let host = authority.filter(|_| leaves().any(Leaf::has_hosts)).map(canonical_host);
        let mut policies = Vec::with_capacity(leaves().map(|leaf| leaf.everywhere.len()).sum());
        for leaf in leaves() {
            leaf.policies(host.as_deref(), &mut policies);
        }
        policies.sort_unstable();
        // Two patterns of one policy may fit one host.
        policies.dedup();
        Matched { policies }
    }
}

// === impl Matched ===

impl Matched {
    /// Whether nothing matches, so that the request passes.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policies with their indices, in the order of the configuration.
    pub fn policies<'c>(&self, config: &'c Config) -> impl Iterator<Item = (usize, &'c Policy)> {
        self.policies.iter().filter_map(|&index| Some((index, config.policies.get(index)?)))
    }

    /// What is left once the method is known.
    pub fn on_method(self, config: &Config, method: Option<&[u8]>) -> Self {
        self.retain(config, |matcher| matcher.matches_method(method))
    }

    /// What is left once headers (names in lower case) and query are known.
    pub fn on_fields(
        self,
        config: &Config,
        target: Option<&[u8]>,
        headers: &[(&[u8], &[u8])],
    ) -> Self {
        let target = target.unwrap_or_default();
        self.retain(config, |matcher| {
            matcher.headers.iter().all(|field| field.matches_headers(headers))
                && matcher.query.iter().all(|field| field.matches_query(target))
        })
    }

    /// The host's properties of the route that have yet to decide, each once.
    pub fn route_properties<'c>(&self, config: &'c Config) -> BTreeSet<&'c str> {
        let mut asked = BTreeSet::new();
        for (_, policy) in self.policies(config) {
            policy.matcher.route.properties(&mut asked);
        }
        asked
    }

    /// What is left once the route is known: `value` gives a property that was read.
    pub fn on_route<'v>(self, config: &Config, value: impl Fn(&str) -> Option<&'v [u8]>) -> Self {
        self.retain(config, |matcher| matcher.route.matches(&value))
    }

    /// What is left of all that match: all of it or the first, as the document says. The last word.
    pub fn applying(mut self, config: &Config) -> Self {
        if config.apply == Apply::First {
            self.policies.truncate(1);
        }
        self
    }

    /// Those for which `stays` says so.
    pub(crate) fn keep(
        mut self,
        config: &Config,
        mut stays: impl FnMut(usize, &Policy) -> bool,
    ) -> Self {
        self.policies
            .retain(|&index| config.policies.get(index).is_some_and(|policy| stays(index, policy)));
        self
    }

    fn retain(self, config: &Config, fits: impl Fn(&Matcher) -> bool) -> Self {
        self.keep(config, |_, policy| fits(&policy.matcher))
    }

    /// Whether any identity of these policies is the client's address.
    pub fn reads_address(&self, config: &Config) -> bool {
        self.policies(config).any(|(_, policy)| policy.reads_address)
    }

    /// Whether any is another property of the host's.
    pub fn has_properties(&self, config: &Config) -> bool {
        self.policies(config).any(|(_, policy)| !policy.properties.is_empty())
    }

    /// The other properties of the host's that their identities are read from, each once.
    pub fn properties<'c>(&self, config: &'c Config) -> BTreeSet<&'c str> {
        self.policies(config).flat_map(|(_, p)| &p.properties).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::RouteMatch;
    use proptest::prelude::*;
    use std::format;

    fn config(policies: &[String], apply: &str) -> Config {
        let policies: Vec<_> = policies
            .iter()
            .enumerate()
            .map(|(index, fields)| {
                format!(
                    r#"{{"name": "p{index}", {fields}, "rate_limits": [{{"name": "l", "by": "ip", "limit": 1, "per": "1s"}}]}}"#
                )
            })
            .collect();
        let document = format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "apply": "{apply}", "policies": [{}]}}"#,
            policies.join(",")
        );
        let reading = Config::read(&document);
        reading.config.unwrap_or_else(|| panic!("{document}: {:?}", reading.diagnostics))
    }

    fn names(config: &Config, matched: &Matched) -> Vec<String> {
        matched.policies(config).map(|(_, policy)| policy.name.clone()).collect()
    }

    fn all(config: &Config, path: &str, host: &str) -> Vec<String> {
        let matched = config.on_path(Some(path.as_bytes())).on_host(config, Some(host.as_bytes()));
        names(config, &matched)
    }

    #[test]
    fn hosts_and_paths_lead_to_their_policies_in_order() {
        let config = config(
            &[
                r#""match": {"path": "/a/**"}"#.into(),
                r#""match": {"path": "/a/b", "host": "api.example.com"}"#.into(),
                r#""match": {"path": "/**", "host": ["*.example.com", "other.org"]}"#.into(),
                r#""match": {"path": "/{x}/b"}"#.into(),
                r#""match": {"path_regex": "/[a-c]/b"}, "priority": 7"#.into(),
                r#""match": {"path": "/a/**", "host": "*.com"}"#.into(),
            ],
            "all",
        );
        let rows: [(&str, &str, &[&str]); 6] = [
            ("/a/b", "API.example.com:80", &["p4", "p0", "p1", "p2", "p3", "p5"]),
            ("/a/b", "x.y.example.com", &["p4", "p0", "p2", "p3", "p5"]),
            ("/a/b", "example.com", &["p4", "p0", "p3", "p5"]),
            ("/z/b", "other.org", &["p2", "p3"]),
            ("/z", "none", &[]),
            ("//b", "other.org", &["p2"]),
        ];
        for (path, host, expected) in rows {
            assert_eq!(all(&config, path, host), expected, "{path} {host}");
        }
    }

    #[test]
    fn first_keeps_the_first_that_fits_in_every_respect() {
        let policies = [
            r#""match": {"path": "/**", "headers": {"x-tier": "gold"}}"#.into(),
            r#""match": {"path": "/**", "query": {"v": {"absent": true}}}"#.into(),
            r#""match": {"path": "/**"}"#.into(),
        ];
        let rows: [(&str, &str, &str, &[&str]); 3] = [
            ("/x", "gold", "p0", &["p0", "p1", "p2"]),
            ("/x", "silver", "p1", &["p1", "p2"]),
            ("/x?v=1", "silver", "p2", &["p2"]),
        ];
        for (target, tier, first, every) in rows {
            let headers: [(&[u8], &[u8]); 1] = [(b"x-tier", tier.as_bytes())];
            let of = |apply| {
                let config = config(&policies, apply);
                let matched = config.on_path(Some(target.as_bytes())).on_host(&config, None);
                let matched = matched.on_fields(&config, Some(target.as_bytes()), &headers);
                names(&config, &matched.applying(&config))
            };
            assert_eq!(of("first"), [first]);
            assert_eq!(of("all"), every);
        }
    }

    proptest! {
        /// The tree answers as the patterns do one by one.
        #[test]
        fn the_tree_agrees_with_a_scan(
            patterns in prop::collection::vec("(/(a|b|\\{x\\}|c)){0,3}(/|/\\*\\*)?", 1..20),
            path in "(/(a|b|c|d)?){0,4}",
        ) {
            let parsed: Vec<_> = patterns.iter().filter_map(|p| PathPattern::parse(p).ok()).collect();
            let matchers: Vec<_> = parsed
                .iter()
                .map(|path| Matcher { hosts: None, path: path.clone(), methods: None, headers: Vec::new(), query: Vec::new(), route: RouteMatch::default() })
                .collect();
            let router = Router::new(matchers.iter().map(|matcher| (matcher, Needs::default())));
            let path = canonical(path.as_bytes());
            let mut found = Vec::new();
            for leaf in router.candidates(Some(&path)).leaves {
                router.leaves[leaf].policies(None, &mut found);
            }
            found.sort_unstable();
            let scan: Vec<_> = (0..parsed.len()).filter(|&i| parsed[i].matches(Some(&path))).collect();
            prop_assert_eq!(found, scan);
        }
    }
}
