//! Scenario files: what they may say, and what they mean to a world. It must not know the ABI.

pub(crate) mod check;
pub(crate) mod expect;
pub(crate) mod file;
pub(crate) mod interleavings;
pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod matchers;
pub(crate) mod network;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod rules;
pub(crate) mod script;
pub(crate) mod template;
pub(crate) mod timeline;
pub(crate) mod units;
pub(crate) mod values;
