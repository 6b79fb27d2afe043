//! Owns the tables of home regions.

use super::super::shape::Kind::{Duration, Map, Table, Text};
use super::super::shape::{Field, Known, Shape, may, must, with_default};
use super::kinds::{REGION, TENANT};

shapes! {
    /// Home regions of tenants. The same in every region.
    HOMES "homes" {
        "regions" => must(Map { key: &REGION, value: &Table(&HOME), min: 1, max: 64 }, r#"{"north": {"cluster": "tidegate-north"}}"#,
            "The regions that are homes, by the name that their Envoys' `node.locality.region` and their gateways' `--region` have.");
        "tenants" => may(Map { key: &TENANT, value: &REGION, min: 0, max: 10_000 }, "only `default` counts", r#"{"acme": "north"}"#,
            "The home of each tenant that is named here.");
        "default" => may(REGION, "other tenants have no home: each region keeps what it was asked", "\"north\"", "The home of all other tenants.");
    }

    /// A region that is a home.
    HOME "home" {
        "cluster" => must(Text { what: "1 to 255 visible ASCII characters", pattern: "^[!-~]{1,255}$" }, "\"tidegate-north\"",
            "The Envoy cluster that leads to its gateways. In the region itself `gateway.cluster` is asked.");
        "timeout" => with_default(Duration { min_ms: 1, max_ms: 60_000 }, "\"250ms\"", "\"80ms\"",
            "How long a callout to it may take. A request that gets no answer by then is not protected, and `idempotency.on_unavailable` decides.");
    }
}
