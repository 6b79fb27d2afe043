//! What reaches a root outside its streams: gRPC, resolved names. It must not know where it comes from.

use super::grpc_answer::GrpcNews;
use super::vm::Vm;

/// Something a root is told.
#[derive(Debug)]
pub(crate) enum RootNews {
    Grpc {
        token: u32,
        news: GrpcNews,
    },
    /// The addresses of a name, encoded as the callback reads them.
    Resolved {
        token: u32,
        addresses: Vec<u8>,
    },
}

impl Vm {
    pub(crate) fn root_news(&mut self, root: u32, news: RootNews) {
        match news {
            RootNews::Grpc { token, news } => self.grpc_news(root, token, news),
            RootNews::Resolved { token, addresses } => self.resolved(root, token, addresses),
        }
    }
}
