//! Makes docs/cookbook.md from the recipes under tests/cookbook/: each is a scenario, whose head is the text and
//! whose configuration is the snippet. `tests/tests/scenarios/main.rs` runs them.

use std::fs;
use std::path::PathBuf;

use tidegate_policy::check::found;

use crate::root;

const HEAD: &str = "\
# Cookbook

Recipes to start from. Each is the configuration of a scenario that the tests run with the shipped filter
and the gateway's own rules, named below it: look there for what its requests get. This page is made from
those files. Every field is explained in `docs/configuration.md`; `host-sim check` says what is wrong with
yours (`docs/checking.md`).
";

struct Recipe {
    path: String,
    title: String,
    text: String,
    config: String,
}

fn recipes() -> Vec<Recipe> {
    let dir = root().join("tests/cookbook");
    let entries = fs::read_dir(dir).expect("the recipes");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(recipe).collect()
}

fn recipe(path: &PathBuf) -> Recipe {
    let file = fs::read_to_string(path).expect("a readable recipe");
    let head: Vec<&str> = file.lines().map_while(|line| line.strip_prefix("# ")).collect();
    let [title, text @ ..] = head.as_slice() else { panic!("{}: no title", path.display()) };
    assert!(!text.is_empty(), "{}: say what it is for", path.display());
    let config = file.split_once("\n  config:\n").expect("a configuration").1;
    let config = config.lines().map_while(|line| line.strip_prefix("    "));
    Recipe {
        path: path.strip_prefix(root()).expect("below the root").display().to_string(),
        title: (*title).to_owned(),
        text: text.join("\n"),
        config: config.map(|line| format!("{line}\n")).collect(),
    }
}

/// The page.
pub fn cookbook() -> String {
    let section = |recipe: &Recipe| {
        let Recipe { path, title, text, config } = recipe;
        format!("\n## {title}\n\n{text}\n\n```yaml\n{config}```\n\nTested as `{path}`.\n")
    };
    HEAD.to_owned() + &recipes().iter().map(section).collect::<String>()
}

#[test]
fn nothing_is_to_be_said_about_a_recipe() {
    let recipes = recipes();
    assert!(recipes.len() >= 12, "only {} recipes", recipes.len());
    for recipe in recipes {
        let config: serde_json::Value = serde_saphyr::from_str(&recipe.config)
            .unwrap_or_else(|error| panic!("{}: {error}", recipe.path));
        assert_eq!(found(&config.to_string(), ""), [], "{}", recipe.path);
    }
}
