//! `host-sim check`: what a plugin would say about a configuration, shown where the author wrote it. It must not know a field
//! of any plugin: it carries files in and diagnostics out.

mod envoy;
mod show;
mod tree;
mod written;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tidegate_host_sim::{LogLevel, Runner, Scenario, Services};

use crate::args::CheckArgs;
use envoy::Filter;
use show::{Diagnostic, Severity, summary};
use tree::{NoTree, Node};
use written::Written;

/// Could not be checked at all; 1 is a file with errors.
const UNCHECKED: u8 = 2;
/// A configuration or an Envoy file; longer ones are a mistake, and some files have no end.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The version of `--json`'s form, and of the answers that are understood.
const VERSION: u32 = 1;

/// What a plugin answers (docs/checking.md).
#[derive(Deserialize)]
struct Answer {
    diagnostics: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    severity: Severity,
    #[serde(default)]
    field: String,
    problem: String,
    #[serde(default)]
    remedy: String,
    span: Option<(usize, usize)>,
    at: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    file: String,
    errors: usize,
    warnings: usize,
    diagnostics: &'a [Diagnostic],
}

/// Checks one file; exit code 0 without errors, 1 with some, 2 if it cannot be checked.
pub(crate) fn check(args: &CheckArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    match checked(args) {
        Ok((file, found)) => report(args, &file, &found, out),
        Err(error) => {
            eprintln!("error: {}", crate::find::with_causes(error.as_ref()));
            Ok(ExitCode::from(UNCHECKED))
        }
    }
}

fn report(
    args: &CheckArgs,
    file: &str,
    found: &[Diagnostic],
    out: &mut impl Write,
) -> Result<ExitCode, Box<dyn Error>> {
    let errors = found.iter().filter(|found| found.severity == Severity::Error).count();
    let warnings = found.len() - errors;
    if args.json {
        let name = args.file.display().to_string();
        let report = Report { version: VERSION, file: name, errors, warnings, diagnostics: found };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        for diagnostic in found {
            write!(out, "{}", diagnostic.shown(file))?;
        }
        writeln!(out, "{}", summary(errors, warnings))?;
    }
    let failed = errors > 0 || (args.deny_warnings && warnings > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The file's text and what was found in it.
fn checked(args: &CheckArgs) -> Result<(String, Vec<Diagnostic>), Box<dyn Error>> {
    let file = read(&args.file)?;
    let runner = Runner::with_cache(Some(args.cache.clone()))?;
    let root = match tree::parse(&file) {
        Ok(root) => root,
        // Of JSON the plugin itself says what is wrong, in its own words.
        Err(_) if is_json(&args.file) => {
            let found = one(args, &runner, &file, None, &bare(Written::json(&file)))?;
            return Ok((file, found));
        }
        Err(NoTree { problem, at }) => {
            let found = no_yaml(problem, at).placed(&file);
            return Ok((file, vec![found]));
        }
    };
    let filters = envoy::filters(&root, &file);
    let mut found = Vec::new();
    if filters.is_empty() && envoy::is_envoy(&root) {
        return Err(format!("{}: an Envoy file without a wasm filter", args.file.display()).into());
    }
    if filters.is_empty() {
        let written =
            if is_json(&args.file) { Written::json(&file) } else { Written::value(&root) };
        found.extend(one(args, &runner, &file, Some(&root), &bare(written))?);
    }
    for filter in &filters {
        let mut own = one(args, &runner, &file, Some(&root), filter)?;
        if filters.len() > 1 {
            own.iter_mut().for_each(|found| found.filter = Some(filter.name.clone()));
        }
        found.append(&mut own);
    }
    Ok((file, found))
}

/// A configuration that stands in no Envoy file.
fn bare(config: Written) -> Filter {
    Filter {
        name: String::new(),
        wasm: None,
        config: Some(config),
        env: Vec::new(),
        facts: serde_json::Value::Null,
    }
}

/// Checks one configuration.
fn one(
    args: &CheckArgs,
    runner: &Runner,
    file: &str,
    root: Option<&Node>,
    filter: &Filter,
) -> Result<Vec<Diagnostic>, Box<dyn Error>> {
    let wasm = plugin(args, filter)?;
    let empty = Written::json("");
    let config = filter.config.as_ref().unwrap_or(&empty);
    let facts = match &filter.facts {
        serde_json::Value::Null => String::new(),
        facts => facts.to_string(),
    };
    let Some(answer) = runner.check(&wasm, config.json.as_bytes(), facts.as_bytes())? else {
        return started(runner, &wasm, filter, config);
    };
    let answer: Answer = serde_json::from_slice(&answer).map_err(|error| {
        format!("the plugin's answer is not what docs/checking.md says: {error}")
    })?;
    let diagnostic = |answered: Answered| {
        let is_around = answered.at.is_some();
        let pointed = answered.at.as_deref().map(|at| {
            let node = root.and_then(|root| envoy::pointed(root, at));
            (at.trim_start_matches('/').replace('/', "."), node.map(|node| node.span.clone()))
        });
        let (field, span) = match pointed {
            Some((field, span)) => (field, span),
            None => (answered.field, answered.span.map(|(start, end)| config.place(start..end))),
        };
        let Answered { severity, problem, remedy, .. } = answered;
        Diagnostic {
            severity,
            filter: None,
            field,
            problem,
            remedy,
            line: None,
            column: None,
            span,
            is_around,
        }
        .placed(file)
    };
    Ok(answer.diagnostics.into_iter().map(diagnostic).collect())
}

/// What the simulator sees of a plugin that cannot be asked: it is started with the configuration.
fn started(
    runner: &Runner,
    wasm: &[u8],
    filter: &Filter,
    config: &Written,
) -> Result<Vec<Diagnostic>, Box<dyn Error>> {
    let env: serde_json::Map<_, _> =
        filter.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let scenario = serde_json::json!({ "name": "check", "plugin": { "env": env } });
    let scenario = Scenario::parse(&scenario.to_string())?.with_config(config.json.as_bytes());
    let report = runner.run_bytes(&scenario, wasm, Services::default())?;
    let diagnostic = |severity: Severity, problem: String| Diagnostic {
        severity,
        filter: None,
        field: String::new(),
        problem,
        remedy: String::new(),
        line: None,
        column: None,
        span: None,
        is_around: false,
    };
    let mut lines: Vec<(Severity, &str)> = Vec::new();
    for line in &report.logs {
        let severity = match line.level {
            LogLevel::Error | LogLevel::Critical => Severity::Error,
            LogLevel::Warn => Severity::Warning,
            _ => continue,
        };
        // Every VM of the host says the same.
        if !lines.contains(&(severity, &line.message)) {
            lines.push((severity, &line.message));
        }
    }
    let mut found: Vec<Diagnostic> =
        lines.into_iter().map(|(severity, text)| diagnostic(severity, text.to_owned())).collect();
    if let Some(error) = &report.start_error {
        found.push(diagnostic(Severity::Error, error.to_string()));
    }
    Ok(found)
}

/// The plugin's bytes: what the command line names, else what the Envoy file names.
fn plugin(args: &CheckArgs, filter: &Filter) -> Result<Vec<u8>, Box<dyn Error>> {
    let path = match (&args.wasm, &filter.wasm) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => {
            return Err("which plugin? name its .wasm: --wasm PATH, or HOST_SIM_WASM".into());
        }
    };
    std::fs::read(&path).map_err(|error| {
        let why = "is it built? --wasm PATH names another";
        format!("the plugin {} cannot be read: {error}; {why}", path.display()).into()
    })
}

fn no_yaml(problem: String, at: usize) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        filter: None,
        field: String::new(),
        problem,
        remedy: String::new(),
        line: None,
        column: None,
        span: Some(at..at),
        is_around: false,
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn read(path: &Path) -> Result<String, Box<dyn Error>> {
    use std::io::Read as _;
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|error| named(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| named(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(named(&format!("longer than {FILE_BYTES_MAX} bytes")).into());
    }
    Ok(String::from_utf8(bytes).map_err(|error| named(&error))?)
}
