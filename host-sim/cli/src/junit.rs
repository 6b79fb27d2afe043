//! A run as JUnit XML, for the pages of a CI. It must not hold times: the same run is the same file.

use std::error::Error;
use std::path::Path;

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use crate::lints;
use crate::pool::Case;

/// Writes one test case for each scenario, with its file as class.
pub(crate) fn write(path: &Path, cases: &[Case]) -> Result<(), Box<dyn Error>> {
    let mut suite = TestSuite::new("host-sim");
    for case in cases {
        suite.add_test_case(test_case(case)?);
    }
    let mut document = Document::new("host-sim");
    document.add_test_suite(suite);
    let text = document.to_string()?;
    std::fs::write(path, text).map_err(|error| format!("--junit {}: {error}", path.display()))?;
    Ok(())
}

fn test_case(case: &Case) -> std::io::Result<TestCase> {
    let file = case.file.display().to_string();
    let (name, status) = match &case.outcome {
        Ok(report) if report.passed() => (report.name.clone(), TestCaseStatus::success()),
        Ok(report) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let failures: Vec<_> = report.failures().map(ToString::to_string).collect();
            let first = report.failures().next().map(|check| check.what.clone());
            status.set_message(first.unwrap_or_default()).set_description(failures.join("\n"));
            (report.name.clone(), status)
        }
        Err(error) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message("the scenario could not run").set_description(error.as_str());
            (file.clone(), status)
        }
    };
    let mut test_case = TestCase::new(name, status);
    test_case.set_classname(file);
    // Lints that fail nothing would be lost on a page that shows only failures.
    let mut shown = Vec::new();
    if let Ok(report) = &case.outcome {
        lints::print(report, &mut shown)?;
    }
    if !shown.is_empty() {
        test_case.set_system_out(String::from_utf8_lossy(&shown));
    }
    Ok(test_case)
}
