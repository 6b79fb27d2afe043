//! Plugins that are not ours, unchanged: the SDK authors' own examples in two ABI versions, and three that are written for
//! these tests against somebody else's SDK or in C.

mod examples;
mod support;
mod written;
