//! Owns how a table and a field of the document are described: what `shapes` is written in, and what
//! the JSON Schema and docs/configuration.md are made from. Reads nothing.

/// One kind of table.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name in the schema and in the reference: `rate_limit`.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// The names that it knows: all that the reader is given, so that the shipped filter holds no
    /// documentation.
    pub(super) known: Known,
    /// The fields, in the order in which people read them.
    pub fields: &'static [Field],
}

/// The names of a shape's fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known(pub(super) &'static [&'static str]);

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Whether it has to be there, and what holds without it.
    pub need: Need,
    /// What a number counts; empty where the value says it itself.
    pub unit: &'static str,
    /// A value that is right, as JSON.
    pub example: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// Whether a field has to be there.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// It has to.
    Must,
    /// It may be left out; then this value holds, as JSON.
    Default(&'static str),
    /// It may be left out; then this holds, in words.
    May(&'static str),
    /// Exactly one of the fields of its table that are marked so has to be there.
    OneOf,
    /// At least one of the fields of its table that are marked so has to be there.
    AnyOf,
}

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text.
    Text {
        /// In words: `a host`.
        what: &'static str,
        /// What it looks like, as a regular expression of JSON Schema. It may take in more than the
        /// filter does, never less.
        pattern: &'static str,
    },
    /// One of some words.
    Word(&'static [&'static str]),
    /// A whole number.
    Whole {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// Yes or no.
    Bool,
    /// The word `true`.
    True,
    /// A duration in words: `45ms`, `1h30m`, `minute`.
    Duration {
        /// The shortest.
        min_ms: u64,
        /// The longest.
        max_ms: u64,
    },
    /// A percentage from `0%` to `100%` with at most two decimals.
    Percentage,
    /// A table of known fields.
    Table(&'static Shape),
    /// A table whose names the author chooses.
    Map {
        /// What the names look like; a [`Kind::Text`].
        key: &'static Kind,
        /// What each holds.
        value: &'static Kind,
        /// The fewest entries.
        min: usize,
        /// The most entries.
        max: usize,
    },
    /// A list.
    List {
        /// What each item is.
        item: &'static Kind,
        /// The fewest items.
        min: usize,
        /// The most items.
        max: usize,
    },
    /// One of several forms, the short ones first.
    Either(&'static [Kind]),
}

// === impl Known ===

impl Known {
    /// Whether the shape has a field of this name.
    pub(super) fn has(self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

// === impl Field ===

impl Field {
    const fn new(kind: Kind, need: Need, example: &'static str, doc: &'static str) -> Self {
        Self { name: "", kind, need, unit: "", example, doc }
    }

    /// The same, counting in `unit`.
    pub(super) const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }
}

/// A field that has to be there.
pub(super) const fn must(kind: Kind, example: &'static str, doc: &'static str) -> Field {
    Field::new(kind, Need::Must, example, doc)
}

/// A field that holds `default` (JSON) when it is left out.
pub(super) const fn with_default(
    kind: Kind,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Field {
    Field::new(kind, Need::Default(default), example, doc)
}

/// A field that may be left out; `without` says in words what holds then.
pub(super) const fn may(
    kind: Kind,
    without: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Field {
    Field::new(kind, Need::May(without), example, doc)
}

/// One of the fields of which exactly one has to be there.
pub(super) const fn one_of(kind: Kind, example: &'static str, doc: &'static str) -> Field {
    Field::new(kind, Need::OneOf, example, doc)
}

/// One of the fields of which at least one has to be there.
pub(super) const fn any_of(kind: Kind, example: &'static str, doc: &'static str) -> Field {
    Field::new(kind, Need::AnyOf, example, doc)
}

/// A list of 1 to `max` items.
pub(super) const fn some(item: &'static Kind, max: usize) -> Kind {
    Kind::List { item, min: 1, max }
}
