//! Owns the state of one VM: its roots, the streams that are alive, the callouts that are out.
//! A callback here reads facts, asks the exchange and carries out what it says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tidegate_policy::breaker::alone::Ticket;
use tidegate_policy::exchange::{Act, Answer, Effects, Event, Exchange, Settlement};
use tidegate_policy::identity::Facts;
use tidegate_policy::wire::DecisionId;

use crate::abi::Action;
use crate::circuits::Report;
use crate::ids::Ids;
use crate::leases::Flight;
use crate::numbered::{self, Numbered};
use crate::root::Root;
use crate::shares::{self, Taken};
use crate::{facts, render};

mod answers;
mod audit;
mod bodies;
mod calls;
mod circuits;
mod late;
mod life;
mod record;
mod replies;
mod route;
mod sync;
mod together;

pub(crate) use audit::Events;
use bodies::Waits;
use late::Lates;
pub(crate) use replies::refuse_unready;
use replies::{deny, or_log, resume};
use route::{routed, unreadable};
use sync::Takings;
pub(crate) use together::Line;
use together::Party;

thread_local! {
    static VM: RefCell<Vm> = const { RefCell::new(Vm::new()) };
    /// Set by the first configuration with idempotency, for as long as the VM lives.
    static BODIES: Cell<bool> = const { Cell::new(false) };
}

/// Whether anything here ever looks at a body. Bodies enter the VM since the filter exports their
/// callbacks; where no policy has idempotency they leave it again after this.
pub(crate) fn looks_at_bodies() -> bool {
    BODIES.get()
}

/// Runs one callback. `None` if the state is already in use: no known host calls the VM from
/// within a host call, and one that does must not trap it.
pub(crate) fn with<T>(callback: impl FnOnce(&mut Vm) -> T) -> Option<T> {
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| callback(&mut vm)))
}

/// One VM's state.
pub(crate) struct Vm {
    /// Contexts without a parent, with their configuration once they have one.
    roots: BTreeMap<u32, Option<Rc<Root>>>,
    streams: Numbered<Stream>,
    /// Which stream waits for which callout; kept until the answer comes, even if the stream goes.
    calls: Numbered<Call>,
    ids: Option<Ids>,
    /// The requests that wait for the first answer to their key.
    waiting: Vec<Waits>,
    /// The streams whose reply is on its way out, and has no type but what the host says.
    untyped: Vec<u32>,
    /// What streams have of leased units, until they are decided.
    leased: Takings,
    /// Streams that wait for units that another one's message brings.
    joined: BTreeMap<u32, Option<Flight>>,
    /// Those of them whose wait is over.
    woken: Vec<u32>,
    /// What ends claims and could not be told yet.
    lates: Lates,
    /// The root in whose context such a one is told, by whichever configuration it was sent before.
    telling: Option<u32>,
}

struct Stream {
    root: u32,
    /// How much of the body that the host holds was read: of the request, then of the answer.
    seen: usize,
    /// Whether its end was taken in.
    is_over: bool,
    /// Whether more of its request is to come than its headers.
    has_body: bool,
    /// Only a stream that asked has one.
    exchange: Option<Box<Open>>,
}

/// An exchange that goes on, with the configuration that it began under.
struct Open {
    exchange: Exchange,
    root: Rc<Root>,
    /// The local shares that it took, until it is decided.
    taken: Taken,
}

struct Call {
    waiter: Waiter,
    /// The configuration that asked; it outlives an update.
    root: Rc<Root>,
    /// Whose gateway was asked, and leave for it.
    called: (Option<usize>, Ticket),
    /// The root in whose context it was made, if that may be another configuration's.
    told_by: Option<u32>,
}

/// Who waits for a callout.
enum Waiter {
    /// A request that is held.
    Stream(u32),
    /// The same, of which few are out at once.
    Alone(u32),
    /// Requests that are held, which are asked about in one message.
    Together(Party),
    /// An answer that is held until it is stored.
    Stored(u32, Settlement),
    /// Nobody: what a decision had reserved or claimed is settled.
    Settlement(Settlement),
    /// The circuit breakers of the configuration that reports.
    Circuits(Report),
    /// Nobody: it is what pools of leased units have to say.
    Sync(DecisionId, Vec<Flight>),
    /// Nobody: it is so many audit events.
    Events(DecisionId, (usize, usize)),
    /// A request whose decision takes effect once its event is on record. `is_void`: it is refused if that is not so.
    Record { stream: u32, id: DecisionId, is_void: bool },
}

// === impl Vm ===

impl Vm {
    const fn new() -> Self {
        Self {
            roots: BTreeMap::new(),
            streams: numbered::nothing(),
            calls: numbered::nothing(),
            ids: None,
            waiting: Vec::new(),
            untyped: Vec::new(),
            leased: Takings::new(),
            joined: BTreeMap::new(),
            woken: Vec::new(),
            lates: Lates::new(),
            telling: None,
        }
    }

    pub(crate) fn request_headers(&mut self, stream: u32, has_body: bool) -> Action {
        let Some(known) = self.streams.get_mut(&stream) else { return refuse_unready() };
        known.has_body = has_body;
        let root = self.roots.get(&known.root).and_then(Option::clone);
        let Some((root, ids)) = root.zip(self.ids.as_mut()) else { return refuse_unready() };
        let request = match render::strip(&root.config).and_then(|()| facts::request(&root.config))
        {
            Ok(request) => request,
            Err(status) => return unreadable(&root, status),
        };
        let (matched, headers) = match request.matched(&root.config) {
            Ok((matched, _)) if matched.is_empty() => return Action::Continue,
            Ok(matched) => matched,
            Err(status) => return unreadable(&root, status),
        };
        let matched = match routed(&root, matched) {
            Ok(matched) if matched.is_empty() => return Action::Continue,
            Ok(matched) => matched,
            Err(status) => return unreadable(&root, status),
        };
        let sender = request.sender(&root.config, &root.secrets, &matched, headers, has_body);
        let facts = match sender {
            Ok(facts) => facts,
            Err(status) => return unreadable(&root, status),
        };
        let id = ids.decision();
        let known = &root.fresh_circuits(stream, None);
        let event = Event::Request { matched, facts: &facts, caller: &root.caller, id, known };
        let mut exchange = Exchange::default();
        let effects = exchange.on(&root.config, &root.overrides, event);
        let open = Open { exchange, root: Rc::clone(&root), taken: Taken::default() };
        self.carry_on(stream, open, effects, false, Some(&facts))
    }

    fn take_open(&mut self, stream: u32) -> Option<Box<Open>> {
        self.streams.get_mut(&stream)?.exchange.take()
    }

    /// Keeps an exchange for the event that it waits for.
    fn keep_open(&mut self, stream: u32, open: Open) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.exchange = Some(Box::new(open));
        }
    }

    fn root_of(&self, stream: u32) -> Option<Rc<Root>> {
        let stream = self.streams.get(&stream)?;
        self.roots.get(&stream.root)?.clone()
    }

    /// Carries out what the exchange says. `held`: whether the host holds the request already.
    fn carry_out(&mut self, stream: u32, open: Open, effects: Effects, held: bool) -> Action {
        self.carry_on(stream, open, effects, held, None)
    }

    /// The same for a request that may have just come, and whose facts can be read.
    fn carry_on(
        &mut self,
        stream: u32,
        mut open: Open,
        mut effects: Effects,
        held: bool,
        facts: Option<&Facts<'_>>,
    ) -> Action {
        loop {
            if open.root.events.is_some() {
                if self.witness(stream, &mut open, &mut effects) {
                    self.keep_open(stream, open);
                    return Action::HoldAll;
                }
                self.hand_over_whole(&open.root);
            }
            open.root.count(effects.signals);
            if let Some(note) = &effects.note {
                open.root.notice.tell(note);
                or_log(render::note(note), "why a request is denied cannot be noted");
            }
            if let Some(soft) = &effects.soft {
                or_log(render::annotate(soft), "the upstream cannot be told of a soft limit");
            }
            if let Some(breaker) = effects.reroute {
                or_log(render::reroute(&open.root.config, breaker), "no way to another cluster");
            }
            if let Some(settlement) = effects.settlement {
                self.settle(&open.root, *settlement);
            }
            // Some acts have their answer at once; the loop ends because the exchange does.
            effects = match effects.act {
                Act::Deny(denial) => {
                    // Nothing of it is out any more: what has no answer by now was never sent.
                    self.answered(stream, &Answer::NotSent);
                    match denial.is_paid {
                        true => self.commit(stream),
                        false => {
                            open.taken.give_back();
                            self.give_back(stream);
                        }
                    }
                    self.circuit_denied(&open.root, stream);
                    return deny(Some(&open.root.config), &denial);
                }
                Act::Replay(replay) => {
                    self.commit(stream);
                    self.circuit_denied(&open.root, stream);
                    if replay.is_untyped() {
                        // Some replies may never have come by.
                        self.untyped.retain(|earlier| self.streams.contains_key(earlier));
                        self.untyped.push(stream);
                    }
                    or_log(
                        render::replay(&open.root.config, &replay),
                        "a first answer cannot be sent",
                    );
                    return Action::HoldAll;
                }
                Act::Collect => {
                    self.keep_open(stream, open);
                    return Action::HoldBody;
                }
                Act::Wait(delay_ms) => {
                    self.wait(stream, open, delay_ms, None);
                    return Action::HoldAll;
                }
                Act::CountWaiting(policy) => {
                    let event = Event::Others(self.waiting_for(&open.root, policy));
                    open.exchange.on(&open.root.config, &open.root.overrides, event)
                }
                Act::Hold { breaker, delay_ms } => {
                    self.wait(stream, open, delay_ms, Some(breaker));
                    return Action::HoldAll;
                }
                Act::Spend(spends) => {
                    let (answers, now_us) = self.spend(stream, &open.root, &spends);
                    let caller = &open.root.caller;
                    let known = &open.root.fresh_circuits(stream, now_us);
                    let entropy = self.entropy();
                    let event = Event::Spent { spends, answers, entropy, facts, caller, known };
                    open.exchange.on(&open.root.config, &open.root.overrides, event)
                }
                Act::Join => {
                    self.join(stream, open);
                    return Action::HoldAll;
                }
                Act::Permit { circuit, grpc } => {
                    let said = self.ask_circuit(&open.root, &circuit, stream, grpc);
                    let is_refused = said.is_err();
                    let event = Event::Permit(said);
                    let effects = open.exchange.on(&open.root.config, &open.root.overrides, event);
                    if is_refused {
                        circuits::refused(&open.root, circuit.breaker, &effects.act);
                    }
                    effects
                }
                Act::Pass | Act::Resume => {
                    self.commit(stream);
                    if open.exchange.has_to_tell() {
                        if open.exchange.runs_once() {
                            or_log(render::send_once(), "a request may be sent again");
                        }
                        // It goes on: its shares are spent.
                        open.taken = Taken::default();
                        self.keep_open(stream, open);
                    }
                    return if held { resume() } else { Action::Continue };
                }
                Act::Share(calls) => {
                    let (answers, shares) = shares::take(calls);
                    open.taken.and(shares);
                    let event = Event::Shares { answers: &answers, entropy: self.entropy() };
                    open.exchange.on(&open.root.config, &open.root.overrides, event)
                }
                Act::Ask(message) => match self.put(stream, &mut open, &message) {
                    Some(effects) => effects,
                    None => {
                        self.keep_open(stream, open);
                        return Action::HoldAll;
                    }
                },
            };
        }
    }

    /// None before the first configuration, and then nobody waits.
    fn fresh_id(&mut self) -> Option<DecisionId> {
        self.ids.as_mut().map(Ids::decision)
    }

    fn entropy(&mut self) -> u64 {
        self.ids.as_mut().map_or(0, Ids::entropy)
    }
}
