//! Finds scenario files, and reads one with what the command line says of it. It must not run any.

use std::error::Error;
use std::path::{Path, PathBuf};

use tidegate_host_sim::{Scenario, ScenarioError};

use crate::args::Overrides;

/// Files as given; of folders, every scenario in them and below, by name.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        walk(path, &mut found)?;
        if found.is_empty() {
            return Err(format!(
                "{}: no scenario (*.yaml, *.yml, *.json) in this folder",
                path.display()
            )
            .into());
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    let unreadable = |error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        // A link to a folder may lead back up.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            walk(&path, found)?;
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    Ok(())
}

/// One scenario, as its file and the command line say.
pub(crate) fn read(file: &Path, overrides: &Overrides) -> Result<Scenario, ScenarioError> {
    let mut scenario = Scenario::load(file)?;
    if let Some(wasm) = &overrides.wasm {
        scenario = scenario.with_wasm(wasm);
    }
    if let Some(seed) = overrides.seed {
        scenario = scenario.with_seed(seed);
    }
    Ok(scenario)
}

/// An error with what caused it, each said once.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text += &format!(": {next}");
        }
        cause = error.source();
    }
    text
}
