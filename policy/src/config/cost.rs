//! Owns the fields of a limit's `cost`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use super::reader::{At, Table};
use super::shapes;
use crate::cost::{
    BodyCost, COST_MAX, Cost, RequestCost, RequestSource, ResponseCost, ResponseSource,
};

const REMEDY: &str = "write a number of units, {\"header\": \"x-cost\", \"max\": 50}, {\"query\": ..}, {\"body_bytes\": \"1KiB\"}, {\"response_header\": \"x-tokens\", \"reserve\": 10}, {\"response_trailer\": ..} or {\"response_metadata\": ..}";
const SOURCES: [&str; 6] =
    ["header", "query", "body_bytes", "response_header", "response_trailer", "response_metadata"];

/// A cost; `burst` is the most that the limit ever admits at once.
pub(super) fn cost(at: &At<'_, '_>, burst: u32) -> Option<Cost> {
    if at.is_number() {
        let units = at.whole(1, COST_MAX)?;
        if units > burst {
            at.wrong(
                format!("a cost of {units} never fits into a burst of {burst}"),
                format!("write at most {burst}, or raise the burst"),
            );
            return None;
        }
        return Some(Cost::Fixed(units));
    }
    let table = at.table(shapes::COST.known, REMEDY)?;
    let number = |name: &str| table.get(name).map(|at| at.whole(1, COST_MAX));
    let numbers = Numbers {
        default: number("default"),
        max: number("max"),
        unknown: number("unknown"),
        reserve: number("reserve"),
        burst,
    };
    let mut sources = SOURCES.iter().filter_map(|name| Some((*name, table.get(name)?)));
    let (Some((name, source)), None) = (sources.next(), sources.next()) else {
        at.wrong("a cost has exactly one source", REMEDY);
        return None;
    };
    numbers.doubt_idle(&table, name);
    match name {
        "header" => numbers.request(at, header_name(&source).map(RequestSource::Header)),
        "query" => numbers.request(at, parameter_name(&source).map(RequestSource::Query)),
        "body_bytes" => numbers.body(at, size(&source)),
        "response_header" => numbers.response(at, header_name(&source).map(ResponseSource::Header)),
        "response_trailer" => {
            numbers.response(at, header_name(&source).map(ResponseSource::Trailer))
        }
        _ => numbers.response(at, metadata(&source).map(ResponseSource::Metadata)),
    }
}

/// The numbers beside a source: absent, sound, or noted as wrong.
struct Numbers {
    default: Option<Option<u32>>,
    max: Option<Option<u32>>,
    unknown: Option<Option<u32>>,
    reserve: Option<Option<u32>>,
    burst: u32,
}

// === impl Numbers ===

impl Numbers {
    /// A number that its source has no use for is told, not refused: it changes nothing.
    fn doubt_idle(&self, table: &Table<'_, '_>, source: &str) {
        let used: &[&str] = match source {
            "header" | "query" => &["default", "max"],
            "body_bytes" => &["unknown", "max"],
            _ => &["reserve", "max"],
        };
        for name in ["default", "unknown", "reserve"] {
            if let Some(at) = table.get(name).filter(|_| !used.contains(&name)) {
                at.doubt(
                    format!("{name} changes nothing beside {source}"),
                    format!("beside {source} stand {}", used.join(" and ")),
                );
            }
        }
    }

    fn request(&self, at: &At<'_, '_>, source: Option<RequestSource>) -> Option<Cost> {
        let max = self.max.unwrap_or(Some(self.burst))?;
        let default = self.default.unwrap_or(Some(1))?;
        let source = source?;
        self.fits(at, "default", default, max)?;
        if max > self.burst {
            at.doubt(
                format!(
                    "max is {max}: a request that says more than {} is never admitted",
                    self.burst
                ),
                format!(
                    "write max: {} to have it charged that much, or raise the burst",
                    self.burst
                ),
            );
        }
        Some(Cost::Request(RequestCost { source, default, max }))
    }

    fn body(&self, at: &At<'_, '_>, unit_bytes: Option<u32>) -> Option<Cost> {
        let max = self.max.map_or(Some(None), |max| max.map(Some))?;
        let unknown = self.unknown.unwrap_or(Some(self.burst.min(max.unwrap_or(self.burst))))?;
        let unit_bytes = unit_bytes?;
        self.fits(at, "unknown", unknown, max.unwrap_or(COST_MAX))?;
        Some(Cost::Body(BodyCost { unit_bytes, unknown, max }))
    }

    fn response(&self, at: &At<'_, '_>, source: Option<ResponseSource>) -> Option<Cost> {
        let max = self.max.unwrap_or(Some(self.burst))?;
        let reserve = self.reserve.unwrap_or(Some(1))?;
        let source = source?;
        self.fits(at, "reserve", reserve, max)?;
        Some(Cost::Response(ResponseCost { source, reserve, max }))
    }

    fn fits(&self, at: &At<'_, '_>, name: &str, units: u32, max: u32) -> Option<()> {
        let most = max.min(self.burst);
        if units > most {
            at.wrong(
                format!("{name} is {units}, of which at most {most} ever fits"),
                format!("keep {name} within max ({max}) and burst ({})", self.burst),
            );
            return None;
        }
        Some(())
    }
}

/// `512B`, `1KiB`, `4MiB`: 1 B to 1 GiB.
pub(super) fn size(at: &At<'_, '_>) -> Option<u32> {
    const REMEDY: &str = "write a size from 1B to 1GiB, such as \"1KiB\": B, KiB, MiB or GiB";
    const SIZE_MAX: u64 = 1 << 30;
    let text = at.text(REMEDY)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let scale = match unit {
        "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = scale
        .zip(number.parse::<u32>().ok())
        .map(|(scale, number)| u64::from(number) << scale)
        .filter(|bytes| (1..=SIZE_MAX).contains(bytes));
    if bytes.is_none() {
        let remedy = match unit {
            "k" | "K" | "kB" | "KB" | "kb" => format!("did you mean \"{number}KiB\"?"),
            "M" | "MB" | "mb" => format!("did you mean \"{number}MiB\"?"),
            _ => REMEDY.to_owned(),
        };
        at.is_no("size", remedy);
    }
    u32::try_from(bytes?).ok()
}

pub(super) fn header_name(at: &At<'_, '_>) -> Option<String> {
    const REMEDY: &str = "write a header's name such as \"x-cost\"";
    let text = at.text(REMEDY)?;
    let sound = !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !sound {
        at.is_no("header name", REMEDY);
    }
    sound.then(|| text.to_ascii_lowercase())
}

fn parameter_name(at: &At<'_, '_>) -> Option<String> {
    const REMEDY: &str = "write a parameter's name such as \"n\", decoded";
    let text = at.text(REMEDY)?;
    let sound = !text.is_empty() && text.len() <= 128;
    if !sound {
        at.is_no("parameter name", REMEDY);
    }
    sound.then(|| text.to_owned())
}

fn metadata(at: &At<'_, '_>) -> Option<String> {
    const REMEDY: &str =
        "write {\"namespace\": \"io.envoy.ai_gateway\", \"key\": \"llm_total_token\"}";
    let table = at.table(shapes::COST_METADATA.known, REMEDY)?;
    let word = |name: &str| {
        let at = table.must(name, REMEDY)?;
        let text = at.text(REMEDY)?;
        let sound =
            !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        if !sound {
            at.is_no(name, "write 1 to 128 visible ASCII characters");
        }
        sound.then(|| text.to_owned())
    };
    let (namespace, key) = (word("namespace"), word("key"));
    Some(format!("metadata\0filter_metadata\0{}\0{}", namespace?, key?))
}

#[cfg(test)]
mod tests;
