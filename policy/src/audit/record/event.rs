//! Owns the event before it has a place: its canonical bytes, and where in them its place goes. Linking the same
//! events again behind another head, as after a lost race, writes nothing but their places anew.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{EVENT_LEN_MAX, KeyVersion, VERSION, check_event};
use crate::audit::AuditEvent;
use crate::audit::hash::{Hash, to_base64};
use crate::audit::value::{self, Object, Unfit, Value};
use crate::scope::Tenant;

/// The keys of a place, in order. Every event has keys before the first of them.
const PLACE: [&str; 4] = ["key_version", "prev", "seq", "sig"];

/// An event that can stand in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    id: String,
    ts_ms: u64,
    /// Its canonical bytes, without a place.
    bytes: Vec<u8>,
    /// Where in them each key of a place goes.
    cuts: [usize; 4],
}

// === impl Event ===

impl Event {
    /// Takes the event's fields; refuses what could not be read back. What it is about stays out.
    pub fn new(event: &AuditEvent) -> Result<Self, Unfit> {
        Self::with_detail(event, Value::text(&event.detail))
    }

    /// The same with another detail, such as what the event is about without personal data.
    pub fn with_detail(event: &AuditEvent, detail: Value) -> Result<Self, Unfit> {
        let tenant = match &event.tenant {
            Tenant::Named(tenant) => Value::text(tenant.as_str()),
            Tenant::None => Value::Null,
        };
        let fields = [
            ("v", Value::number(VERSION)),
            ("id", Value::text(&event.id)),
            ("ts", Value::number(event.ts_ms)),
            ("region", Value::text(event.region.as_str())),
            ("actor", Value::text(&event.actor)),
            ("tenant", tenant),
            ("action", Value::text(event.action.as_str())),
            ("outcome", Value::text(&event.outcome)),
            ("detail", detail),
        ];
        let fields = fields.map(|(key, value)| (key.to_owned(), value));
        Self::from_fields(&Object::from_iter(fields))
    }

    /// Reads an event from its own canonical bytes, as [`Event::bytes`] gives them.
    pub fn read(bytes: &[u8]) -> Result<Self, Unfit> {
        Self::from_fields(&value::read(bytes)?)
    }

    fn from_fields(fields: &Object) -> Result<Self, Unfit> {
        value::check(fields)?;
        if PLACE.iter().any(|place| fields.contains_key(*place)) {
            return Err(Unfit::new("an event without place has no seq, prev, key_version or sig"));
        }
        let (id, ts_ms) = check_event(fields)?;
        let (bytes, cuts) = value::write_with_cuts(fields, PLACE);
        if bytes.len() > EVENT_LEN_MAX {
            let length = bytes.len();
            return Err(Unfit(format!("{length} bytes: an event has at most {EVENT_LEN_MAX}")));
        }
        Ok(Self { id, ts_ms, bytes, cuts })
    }

    /// The event of a record: what is left without its place and its signature.
    pub fn of_record(bytes: &[u8]) -> Result<Self, Unfit> {
        let mut fields = value::read(bytes)?;
        for place in PLACE {
            fields.remove(place);
        }
        Self::from_fields(&fields)
    }

    /// What tells it from every other: an event that comes again is not appended again.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it happened, in ms since 1970 by the clock of whoever said so.
    pub fn ts_ms(&self) -> u64 {
        self.ts_ms
    }

    /// Its canonical bytes, without a place in a chain.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// The canonical bytes of its record at a place, with a signature or without.
    pub(super) fn placed(
        &self,
        prev: &Hash,
        seq: u64,
        seal: Option<(KeyVersion, [u8; 64])>,
    ) -> Vec<u8> {
        const ROOM: usize = 256;
        let mut out = Vec::with_capacity(self.bytes.len().saturating_add(ROOM));
        let mut from = 0;
        for (key, cut) in PLACE.into_iter().zip(self.cuts) {
            // All of these are plain: there is nothing to escape.
            let value = match (key, &seal) {
                ("prev", _) => format!("\"{prev}\""),
                ("seq", _) => seq.to_string(),
                ("key_version", Some((version, _))) => format!("\"{version}\""),
                ("sig", Some((_, signature))) => format!("\"{}\"", to_base64(signature)),
                _ => continue,
            };
            out.extend_from_slice(self.bytes.get(from..cut).unwrap_or_default());
            for part in [",\"", key, "\":", &value] {
                out.extend_from_slice(part.as_bytes());
            }
            from = cut;
        }
        out.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        out
    }
}
