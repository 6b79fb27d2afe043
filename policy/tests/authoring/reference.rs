//! Makes docs/configuration.md from the table of all fields.

use std::fmt::Write as _;

use tidegate_policy::config::shape::{Field, Kind, Need, Shape};
use tidegate_policy::config::{DOCUMENT_BYTES_MAX, shapes};

const HEAD: &str = "\
# The configuration

Every field of the document that the filter is configured with. This page is made from the table that
the filter reads by (`policy/src/config/shapes.rs`), and tests hold both against the filter: they read
every example, write out every default and go one past both ends of every range. An editor gets the
same from the JSON Schema `policy/config.schema.json`:

```yaml
# yaml-language-server: $schema=https://tidegate.dev/schemas/policy/config.schema.json
version: 1
gateway: { cluster: tidegate }
policies:
  - name: api
    match: { path: /api/** }
    rate_limits: [{ name: per-client, by: ip, limit: 600, per: minute, burst: 60 }]
```

- The filter takes JSON, so YAML is converted before (`host-sim check` does, and says what is wrong with
  either; see `docs/checking.md`). Recipes stand in `docs/cookbook.md`.
- `version` is 1, the first that was published. A later version of the filter reads older documents and
  brings them to its own form as it reads; a document that is newer than the filter is refused, and the
  configuration in force stays.
- The start log and the gauge `tidegate_config_hash` (one for each filter, by its name in Envoy) show a
  hash of what the document says, however it is formatted: the first 32 bits of the SHA-256 of its
  canonical form. `printf '%08x'` makes the gauge's number the log's text.
- A field that stands twice is an error. A field that is not known is a warning, in a `strict` document
  an error. `null` is as good as absent.
- **Durations** are text: `45ms`, `10s`, `15m`, `1h30m`, `30d`, each unit once and larger ones first, up to
  five digits each; or `second`, `minute`, `hour`, `day`, `week`.
- **Percentages** are text with `%` and at most two decimals: `10%`, `0.25%`.
- **Whole numbers** are digits only: no `1e3`, no `1.0`, no quotes.
";

/// The page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mib = DOCUMENT_BYTES_MAX / (1024 * 1024);
    line(&mut page, &format!("- A document has at most {mib} MiB, and nests at most 32 deep.\n"));
    for shape in shapes::all() {
        section(&mut page, shape);
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("a String takes everything");
}

fn section(page: &mut String, shape: &Shape) {
    line(page, &format!("## {}\n\n{}\n", shape.name, shape.doc.trim()));
    let names = |wanted: fn(&Field) -> bool| {
        let fields = shape.fields.iter().filter(|field| wanted(field));
        fields.map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(", ")
    };
    let choice = names(|field| matches!(field.need, Need::OneOf));
    let any = names(|field| matches!(field.need, Need::AnyOf));
    for (words, names) in [("Exactly one", choice), ("At least one", any)] {
        if !names.is_empty() {
            line(page, &format!("{words} of {names} stands in it.\n"));
        }
    }
    line(page, "| field | type | range | without it | example | meaning |");
    line(page, "|---|---|---|---|---|---|");
    for field in shape.fields {
        line(page, &row(field));
    }
    line(page, "");
}

fn row(field: &Field) -> String {
    let unit = if field.unit.is_empty() { String::new() } else { format!(", {}", field.unit) };
    let without = match field.need {
        Need::Must => "an error".to_owned(),
        Need::Default(default) => format!("`{default}`"),
        Need::May(words) => words.to_owned(),
        Need::OneOf => "one of them".to_owned(),
        Need::AnyOf => "one of them at least".to_owned(),
    };
    let cells = [
        format!("`{}`", field.name),
        format!("{}{unit}", kind(&field.kind)),
        range(&field.kind),
        without,
        format!("`{}`", field.example),
        field.doc.to_owned(),
    ];
    // A bar would end the cell, also within code.
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Text { what, .. } => format!("text: {what}"),
        Kind::Word(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Whole { .. } => "whole number".to_owned(),
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::True => "`true`".to_owned(),
        Kind::Duration { .. } => "duration".to_owned(),
        Kind::Percentage => "percentage".to_owned(),
        Kind::Table(shape) => format!("[{}](#{})", shape.name, shape.name),
        Kind::Map { key, value, .. } => {
            let Kind::Text { what, .. } = key else { panic!("names are text") };
            format!("table; names: {what}; values: {}", self::kind(value))
        }
        Kind::List { item, .. } => format!("list of: {}", self::kind(item)),
        Kind::Either(kinds) => kinds.iter().map(self::kind).collect::<Vec<_>>().join("; or "),
    }
}

fn range(kind: &Kind) -> String {
    let count = |min: usize, max: usize, what: &str| match (min, max) {
        (1, 1) => format!("1 {what}"),
        (min, max) => format!("{} to {} {what}s", grouped(min as u64), grouped(max as u64)),
    };
    match kind {
        Kind::Whole { min, max } => {
            format!("{} to {}", grouped(u64::from(*min)), grouped(u64::from(*max)))
        }
        Kind::Duration { min_ms, max_ms } => {
            format!("{} to {}", written(*min_ms), written(*max_ms))
        }
        Kind::Percentage => "0% to 100%".to_owned(),
        Kind::List { min, max, .. } => count(*min, *max, "item"),
        Kind::Map { min, max, .. } => count(*min, *max, "name"),
        Kind::Either(kinds) => {
            let ranges = kinds.iter().map(self::range).filter(|range| !range.is_empty());
            ranges.collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    }
}

fn written(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let (unit_ms, name) =
        units.into_iter().find(|(unit_ms, _)| ms.is_multiple_of(*unit_ms)).unwrap_or((1, "ms"));
    format!("{}{name}", ms / unit_ms)
}

/// `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| String::from_utf8_lossy(group).into_owned()).collect::<Vec<_>>().join(",")
}
