//! The filter chain of one exchange: how far iteration is in each filter and direction. It must not call a plugin.
//!
//! Positions count in the order of iteration, which for responses is the reverse of the configuration's.

use std::cell::RefCell;
use std::rc::Rc;

use super::clock::VmId;
use super::reply::LocalReply;
use super::stream::{Direction, Http};

/// What a filter let pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Gate {
    #[default]
    Open,
    /// Nothing passes, callbacks still come.
    Single,
    /// Nothing passes and no callback comes.
    All,
}

/// One filter's iteration in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Iteration {
    pub(crate) gate: Gate,
    pub(crate) headers_continued: bool,
    /// The filter was told of the end; no data is for it any more.
    pub(crate) end_seen: bool,
    /// A resume after [`Gate::All`] shows held data to this filter first.
    pub(crate) from_current: bool,
}

/// One filter of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    /// The VM and its root; none where the policy closes a failed plugin.
    pub(crate) home: Option<(VmId, u32)>,
    /// The stream context, once the filter saw headers.
    pub(crate) context: Option<u32>,
    /// The deprecated flag: a failed VM is as if the filter were not there.
    pub(crate) is_fail_open: bool,
    /// Its 503 went out.
    pub(crate) has_failed: bool,
    pub(crate) request: Iteration,
    pub(crate) response: Iteration,
}

/// Callbacks that run right now; a reply from within waits for them or ends their iteration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Calls {
    pub(crate) request: bool,
    pub(crate) response: bool,
}

/// A chain and what became of its exchange.
pub(crate) struct Chain {
    pub(crate) http: Rc<RefCell<Http>>,
    pub(crate) filters: Vec<Filter>,
    /// The end of the response entered the chain; the request is not wanted any more.
    pub(crate) is_local_complete: bool,
    /// The end of the response left the chain.
    pub(crate) is_encode_complete: bool,
    /// Response headers left the chain.
    pub(crate) is_encoded: bool,
    pub(crate) request_aborted: bool,
    pub(crate) response_aborted: bool,
    pub(crate) calls: Calls,
    /// A reply that waits for the running request callback.
    pub(crate) prepared: Option<LocalReply>,
    /// A reply of the proxy's own took the place of the upstream's answer.
    pub(crate) has_replied: bool,
}

impl Filter {
    pub(crate) fn new(home: Option<(VmId, u32)>, is_fail_open: bool) -> Self {
        Self {
            home,
            context: None,
            is_fail_open,
            has_failed: false,
            request: Iteration::default(),
            response: Iteration::default(),
        }
    }

    pub(crate) fn iteration(&mut self, direction: Direction) -> &mut Iteration {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }
}

impl Chain {
    pub(crate) fn new(http: Http, filters: Vec<Filter>) -> Self {
        Self {
            http: Rc::new(RefCell::new(http)),
            filters,
            is_local_complete: false,
            is_encode_complete: false,
            is_encoded: false,
            request_aborted: false,
            response_aborted: false,
            calls: Calls::default(),
            prepared: None,
            has_replied: false,
        }
    }

    /// The filter at a position, and the position of a filter: the same sum both ways.
    pub(crate) fn turn(&self, direction: Direction, position: usize) -> usize {
        match direction {
            Direction::Request => position,
            Direction::Response => self.filters.len().saturating_sub(position + 1),
        }
    }

    pub(crate) fn iteration(
        &mut self,
        direction: Direction,
        position: usize,
    ) -> Option<&mut Iteration> {
        let index = self.turn(direction, position);
        self.filters.get_mut(index).map(|filter| filter.iteration(direction))
    }

    pub(crate) fn is_aborted(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.request_aborted,
            Direction::Response => self.response_aborted,
        }
    }

    pub(crate) fn set_calling(&mut self, direction: Direction, is_calling: bool) {
        match direction {
            Direction::Request => self.calls.request = is_calling,
            Direction::Response => self.calls.response = is_calling,
        }
    }

    /// Whether all of a message has entered the chain.
    pub(crate) fn is_complete(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.http.borrow().request.ended,
            Direction::Response => self.is_local_complete,
        }
    }

    /// A resume is of no use once a response made its way.
    pub(crate) fn can_continue(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => !self.is_local_complete,
            Direction::Response => !self.is_encode_complete,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.http.borrow().is_over()
    }
}
