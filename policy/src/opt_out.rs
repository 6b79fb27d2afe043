//! Owns how a route takes itself out of policies: what its metadata may say, and what follows. Knows
//! no encoding of the host's.
//!
//! ```yaml
//! metadata: { filter_metadata: { tidegate: { disabled_policies: [api] } } }    # or disabled: true
//! ```

use alloc::vec::Vec;

use crate::config::Config;
use crate::router::Matched;

/// The property that holds what a route says to the filter.
pub const PROPERTY: &str = "xds\0route_metadata\0filter_metadata\0tidegate";
/// Takes the route out of all policies.
pub const ALL: &[u8] = b"disabled";
/// Takes it out of those that it names.
pub const SOME: &[u8] = b"disabled_policies";

/// What a route says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OptOut {
    /// Of every policy.
    pub all: bool,
    /// Of these.
    pub policies: Vec<Vec<u8>>,
    /// Whether it says something that means nothing: it is then as if it did not say it.
    pub strange: bool,
}

// === impl OptOut ===

impl OptOut {
    /// Takes in the value of [`ALL`].
    pub fn read_all(&mut self, value: &[u8]) {
        match value {
            [1] => self.all = true,
            [0] => {}
            _ => self.strange = true,
        }
    }

    /// Splits what matched: what stays, and what the route is out of. A name that no policy has is
    /// noted as strange.
    pub fn apply(&mut self, config: &Config, matched: Matched) -> (Matched, Vec<usize>) {
        let known =
            |name: &Vec<u8>| config.policies.iter().any(|p| p.name.as_bytes() == name.as_slice());
        self.strange |= !self.policies.iter().all(known);
        let mut out = Vec::new();
        let stays = matched.keep(config, |index, policy| {
            let stays =
                !self.all && !self.policies.iter().any(|name| name == policy.name.as_bytes());
            if !stays {
                out.push(index);
            }
            stays
        });
        (stays, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;
    use std::vec;

    #[test]
    fn a_route_is_out_of_what_it_names_and_of_nothing_else() {
        let policy = |name: &str| {
            format!(
                r#"{{"name": "{name}", "match": {{"path": "/**"}}, "rate_limits": [{{"name": "l", "by": "ip", "limit": 1, "per": "1s"}}]}}"#
            )
        };
        let policies: Vec<String> = ["a", "b", "c"].into_iter().map(policy).collect();
        let document = format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "policies": [{}]}}"#,
            policies.join(",")
        );
        let config = Config::read(&document).config.expect("sound");
        let all = |value: &[u8]| {
            let mut said = OptOut::default();
            said.read_all(value);
            said
        };
        let some = |names: &[&str]| OptOut {
            policies: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
            ..OptOut::default()
        };
        let rows: [(OptOut, Vec<usize>, Vec<usize>, bool); 7] = [
            (OptOut::default(), vec![0, 1, 2], vec![], false),
            (all(&[1]), vec![], vec![0, 1, 2], false),
            (all(&[0]), vec![0, 1, 2], vec![], false),
            (all(b"true"), vec![0, 1, 2], vec![], true),
            (some(&["b"]), vec![0, 2], vec![1], false),
            (some(&["b", "x"]), vec![0, 2], vec![1], true),
            (some(&["a", "b", "c"]), vec![], vec![0, 1, 2], false),
        ];
        for (mut said, stays, out, strange) in rows {
            let matched = config.on_path(Some(b"/")).on_host(&config, None);
            let (left, gone) = said.apply(&config, matched);
            let left: Vec<usize> = left.policies(&config).map(|(index, _)| index).collect();
            assert_eq!((left, gone, said.strange), (stays, out, strange), "{said:?}");
        }
    }
}
