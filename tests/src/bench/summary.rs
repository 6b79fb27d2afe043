//! Owns what is written to `target/bench/`: `summary.json`, one flat object of numbers that later
//! measurements extend, and a list of rows for each report.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use crate::parts;

/// The numbers of one run.
#[derive(Debug, Default)]
pub struct Summary(BTreeMap<String, f64>);

// === impl Summary ===

impl Summary {
    /// Adds a number, rounded to three places.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        self.0.insert(name.into(), (value * 1000.0).round() / 1000.0);
    }

    /// Writes the file; gives its path.
    pub fn write(&self) -> std::io::Result<PathBuf> {
        write("summary", &self.0)
    }
}

/// Writes `target/bench/{name}.json`; gives its path.
pub fn write(name: &str, content: &impl Serialize) -> std::io::Result<PathBuf> {
    let dir = parts::root().join("target/bench");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(content).map_err(std::io::Error::other)?;
    fs::write(&path, text)?;
    Ok(path)
}
