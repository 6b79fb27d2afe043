//! What authors of configuration are told: that the table of all fields says what the reader does, that
//! the published schema and reference are made from it, and that every mistake gets its sentence.

mod cookbook;
mod corpus;
mod documents;
mod hostile;
mod published;
mod reference;
mod samples;
mod schema;
mod table;

use std::path::Path;

/// The checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout")
}
