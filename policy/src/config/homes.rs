//! Owns the field `homes`: which region's gateways keep the records of a tenant's idempotency keys.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::read::duration_ms;
use super::reader::{At, Table};
use super::shapes;
use super::suggest::nearest;
use crate::homes::{Home, Homes};
use crate::scope::{Region, TenantId};

const REGIONS_MAX: usize = 64;
const TENANTS_MAX: usize = 10_000;
/// The way to another part of the world and back.
const TIMEOUT_MS: u32 = 250;
const REMEDY: &str =
    "write {\"regions\": {\"north\": {\"cluster\": \"tidegate-north\"}}, \"default\": \"north\"}";

/// What the document says of homes; none if nothing.
pub(super) fn homes(document: &Table<'_, '_>) -> Option<Homes> {
    let Some(at) = document.get("homes") else {
        return Some(Homes::default());
    };
    let table = at.table(shapes::HOMES.known, REMEDY)?;
    let regions = table.must("regions", REMEDY).and_then(|at| regions(&at));
    let regions = regions?;
    let tenants = match table.get("tenants") {
        None => Some(BTreeMap::new()),
        Some(at) => tenants(&at, &regions),
    };
    let others = match table.get("default") {
        None => Some(None),
        Some(at) => region(&at, &regions).map(Some),
    };
    let (tenants, others) = (tenants?, others?);
    if tenants.is_empty() && others.is_none() {
        at.doubt("no tenant has a home", "write \"tenants\" or \"default\"");
    }
    Some(Homes::new(regions, tenants, others))
}

fn regions(at: &At<'_, '_>) -> Option<Vec<Home>> {
    let entries = at.entries("write {\"north\": {\"cluster\": \"tidegate-north\"}}")?;
    if entries.is_empty() || entries.len() > REGIONS_MAX {
        at.wrong(format!("{} regions", entries.len()), format!("write 1 to {REGIONS_MAX}"));
        return None;
    }
    let homes: Vec<Option<Home>> = entries.iter().map(|(name, at)| home(name, at)).collect();
    homes.into_iter().collect()
}

fn home(name: &str, at: &At<'_, '_>) -> Option<Home> {
    let table = at.table(shapes::HOME.known, "write {\"cluster\": \"tidegate-north\"}")?;
    let region = Region::new(name).map_err(|bad| {
        at.wrong(bad.to_string(), "write the region as the Envoys' locality and its gateways do");
    });
    let led_by = table
        .must("cluster", "name the Envoy cluster that leads to the region's gateways")
        .and_then(|at| cluster(&at));
    let timeout_ms = match table.get("timeout") {
        None => Some(TIMEOUT_MS),
        Some(at) => duration_ms(&at, 1, 60_000, "write 250ms, or another duration from 1ms to 1m")
            .and_then(|ms| u32::try_from(ms).ok()),
    };
    Some(Home { region: region.ok()?, cluster: led_by?, timeout_ms: timeout_ms? })
}

fn tenants(at: &At<'_, '_>, homes: &[Home]) -> Option<BTreeMap<TenantId, usize>> {
    let entries = at.entries("write {\"acme\": \"north\"}")?;
    if entries.len() > TENANTS_MAX {
        at.wrong(format!("{} tenants", entries.len()), format!("write at most {TENANTS_MAX}"));
        return None;
    }
    let mut tenants = BTreeMap::new();
    let mut is_sound = true;
    for (name, at) in entries {
        let tenant = TenantId::new(name).map_err(|bad| {
            at.wrong(bad.to_string(), "write the tenant's name as its identity gives it");
        });
        match (tenant, region(&at, homes)) {
            (Ok(tenant), Some(index)) => drop(tenants.insert(tenant, index)),
            _ => is_sound = false,
        }
    }
    is_sound.then_some(tenants)
}

fn region(at: &At<'_, '_>, homes: &[Home]) -> Option<usize> {
    let names: Vec<&str> = homes.iter().map(|home| home.region.as_str()).collect();
    let remedy = format!("write one of homes.regions: {}", names.join(", "));
    let text = at.text(&remedy)?.to_owned();
    let found = names.iter().position(|name| *name == text);
    if found.is_none() {
        let near = nearest(&text, &names).map(|word| format!("did you mean {word:?}?"));
        at.is_no("region of homes", near.unwrap_or(remedy));
    }
    found
}

/// The name of an Envoy cluster.
pub(super) fn cluster(at: &At<'_, '_>) -> Option<String> {
    let text = at.text("name an Envoy cluster")?;
    let sound = !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
    if !sound {
        at.is_no("cluster name", "write 1 to 255 visible ASCII characters");
    }
    sound.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Reading};
    use std::format;
    use std::string::ToString;

    fn read(homes: &str) -> Reading {
        Config::read(&format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "homes": {homes}, "policies": []}}"#
        ))
    }

    #[test]
    fn homes_are_read_whole() {
        let reading = read(
            r#"{"regions": {"north": {"cluster": "n"}, "south": {"cluster": "s", "timeout": "80ms"}},
                "tenants": {"acme": "south"}, "default": "north"}"#,
        );
        let homes = reading.config.expect("sound").homes;
        let told =
            homes.all().iter().map(|home| (home.region.as_str(), &*home.cluster, home.timeout_ms));
        assert!(told.eq([("north", "n", 250), ("south", "s", 80)]), "{homes:?}");
        assert_eq!(read("null").config.expect("sound").homes.all(), []);
    }

    #[test]
    fn what_cannot_be_is_told_with_field_and_remedy() {
        let north = r#""regions": {"north": {"cluster": "n"}}"#;
        let rows = [
            ("[]".to_string(), "homes", "is no table", "\"default\": \"north\""),
            ("{}".to_string(), "homes.regions", "missing", "\"cluster\""),
            (r#"{"regions": {}}"#.to_string(), "homes.regions", "0 regions", "1 to 64"),
            (
                r#"{"regions": {"n|": {"cluster": "n"}}, "default": "n|"}"#.to_string(),
                "homes.regions.n|",
                "is no region",
                "locality",
            ),
            (
                r#"{"regions": {"north": {}}, "default": "north"}"#.to_string(),
                "homes.regions.north.cluster",
                "missing",
                "name the Envoy cluster",
            ),
            (
                format!(r#"{{{north}, "default": "nort"}}"#),
                "homes.default",
                "no region",
                "\"north\"",
            ),
            (
                format!(r#"{{{north}, "tenants": {{"a": "x-y-z"}}}}"#),
                "homes.tenants.a",
                "no region",
                "north",
            ),
            (
                format!(r#"{{{north}, "tenants": {{"a:b": "north"}}}}"#),
                "homes.tenants.a:b",
                "is no tenant",
                "identity",
            ),
        ];
        for (homes, path, problem, remedy) in rows {
            let reading = read(&homes);
            assert_eq!(reading.config, None, "{homes}");
            let [told] = reading.diagnostics.as_slice() else { panic!("one: {reading:?}") };
            assert_eq!(told.path, path);
            assert!(told.problem.contains(problem), "{told}");
            assert!(told.remedy.contains(remedy), "{told}");
        }
        let idle = read(&format!("{{{north}}}"));
        assert!(idle.config.is_some() && idle.diagnostics[0].problem.contains("no tenant"));
    }
}
