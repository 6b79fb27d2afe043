//! Owns the reading of HTTP/1 messages piece by piece, for clients and for servers. It must not
//! know what a message means.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Names in lower case, and values as they came.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A start line and what follows up to the empty line.
#[derive(Debug, Clone)]
pub struct Head {
    /// The request line or the status line.
    pub start: String,
    /// The headers, in order.
    pub headers: Headers,
}

/// How a body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left.
    Length(usize),
    /// Chunks, of which the running one has so many bytes left.
    Chunked(usize),
    /// Everything until the connection ends.
    UntilClose,
}

/// The next of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes, never none.
    Data(Vec<u8>),
    /// The end, with the trailers of a chunked body.
    End(Headers),
}

/// Reads messages, one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    bytes: Vec<u8>,
    framing: Framing,
}

// === impl Head ===

impl Head {
    /// A header's first value, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// A part of the start line, counted from 0.
    pub fn word(&self, nth: usize) -> &str {
        self.start.split(' ').nth(nth).unwrap_or_default()
    }

    /// How the body after this head is framed; `other` where the head says nothing.
    pub fn framing(&self, other: Framing) -> Framing {
        if self.header("transfer-encoding").as_deref() == Some("chunked") {
            return Framing::Chunked(0);
        }
        let length = self.header("content-length").and_then(|value| value.parse().ok());
        length.map_or(other, Framing::Length)
    }
}

// === impl Reader ===

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader at the beginning of a connection.
    pub fn new(from: R) -> Self {
        Self { from, bytes: Vec::new(), framing: Framing::Length(0) }
    }

    /// The next message's head, or nothing at the connection's end.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(block) = self.until(b"\r\n\r\n").await? else {
            return Ok(None);
        };
        let mut lines = lines(&block);
        let start = lines.next().map(|line| String::from_utf8_lossy(line).into_owned());
        Ok(Some(Head { start: start.unwrap_or_default(), headers: headers(lines) }))
    }

    /// Says how the body that follows is framed.
    pub fn begin_body(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// The next of the body. A connection that ends too early is an error.
    pub async fn piece(&mut self) -> io::Result<Piece> {
        match self.framing {
            Framing::Length(0) => return Ok(Piece::End(Headers::new())),
            Framing::Chunked(0) => return self.chunk_begin().await,
            Framing::UntilClose => {
                if self.bytes.is_empty() && !self.more().await? {
                    return Ok(Piece::End(Headers::new()));
                }
            }
            Framing::Length(_) | Framing::Chunked(_) => {}
        }
        let data = self.data().await?;
        if self.framing == Framing::Chunked(0) {
            self.require(2).await?;
            self.bytes.drain(..2);
        }
        Ok(Piece::Data(data))
    }

    /// The rest of the body, whole, and its trailers.
    pub async fn body(&mut self) -> io::Result<(Vec<u8>, Headers)> {
        let mut body = Vec::new();
        loop {
            match self.piece().await? {
                Piece::Data(data) => body.extend(data),
                Piece::End(trailers) => return Ok((body, trailers)),
            }
        }
    }

    /// Returns when the other side has closed the connection.
    pub async fn closed(&mut self) {
        while matches!(self.more().await, Ok(true)) {}
    }

    async fn chunk_begin(&mut self) -> io::Result<Piece> {
        let line = self.until(b"\r\n").await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size > 0 {
            self.framing = Framing::Chunked(size);
            return Box::pin(self.piece()).await;
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                self.framing = Framing::Length(0);
                return Ok(Piece::End(headers(trailers.iter().map(Vec::as_slice))));
            }
            trailers.push(line);
        }
    }

    /// What is there of the running chunk or length.
    async fn data(&mut self) -> io::Result<Vec<u8>> {
        if self.bytes.is_empty() && !self.more().await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = match &mut self.framing {
            Framing::Length(left) | Framing::Chunked(left) => left,
            Framing::UntilClose => return Ok(std::mem::take(&mut self.bytes)),
        };
        let size = self.bytes.len().min(*left);
        *left -= size;
        Ok(self.bytes.drain(..size).collect())
    }

    /// What stands before `mark`, which is taken away too; nothing if the connection ends first.
    async fn until(&mut self, mark: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.bytes.windows(mark.len()).position(|window| window == mark) {
                let rest = self.bytes.split_off(at + mark.len());
                let mut block = std::mem::replace(&mut self.bytes, rest);
                block.truncate(at);
                return Ok(Some(block));
            }
            if !self.more().await? {
                return if self.bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    async fn require(&mut self, count: usize) -> io::Result<()> {
        while self.bytes.len() < count {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.from.read_buf(&mut self.bytes).await? > 0)
    }
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn headers<'b>(lines: impl Iterator<Item = &'b [u8]>) -> Headers {
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        Some((name, line[colon + 1..].trim_ascii().to_vec()))
    };
    lines.filter_map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], other: Framing) -> io::Result<(Head, Vec<u8>, Headers)> {
        let mut reader = Reader::new(bytes);
        let head = reader.head().await?.expect("a head");
        reader.begin_body(head.framing(other));
        let (body, trailers) = reader.body().await?;
        Ok((head, body, trailers))
    }

    #[tokio::test]
    async fn bodies_end_by_length_chunks_or_close() {
        let none = Framing::Length(0);
        let rows: [(&[u8], Framing, &[u8]); 4] = [
            (b"GET / HTTP/1.1\r\nA: 1\r\n\r\n", none, b""),
            (b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcd", none, b"abc"),
            (
                b"X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n",
                none,
                b"abc",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", Framing::UntilClose, b"abc"),
        ];
        for (bytes, other, body) in rows {
            let (_, seen, _) = read(bytes, other).await.expect("a message");
            assert_eq!(seen, body, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn chunks_may_end_with_trailers() {
        let bytes = b"X\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nB: \xff\r\n\r\n";
        let (_, body, trailers) = read(bytes, Framing::Length(0)).await.expect("a message");
        assert_eq!((body, trailers), (b"a".to_vec(), vec![("b".to_owned(), b"\xff".to_vec())]));
    }

    #[tokio::test]
    async fn a_message_that_is_cut_is_an_error() {
        for bytes in [
            b"GET / HT".as_slice(),
            b"X\r\ncontent-length: 3\r\n\r\nab",
            b"X\r\ntransfer-encoding: chunked\r\n\r\n2\r\na",
            b"X\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        ] {
            assert!(read(bytes, Framing::Length(0)).await.is_err());
        }
    }
}
