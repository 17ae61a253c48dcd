// SPDX-License-Identifier: Apache-2.0
//! The header of the PROXY protocol, version 2, with which a load balancer names its client.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2. Whoever sends a header can name any
//! address, so the caller MUST read headers of load balancers only, which it knows by their addresses. Version 1, other
//! transports than TCP and headers over [`HEADER_BYTES`] are refused; extensions (TLVs) are skipped, checksums among
//! them. The caller MUST bound the time.

use std::{io, net::IpAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// First bytes of every header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header behind its first 16 bytes that is read; 65535 could be announced.
const HEADER_BYTES: u16 = 4096;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("does not begin with a header of PROXY protocol version 2")]
    Signature,
    #[error("the header is longer than {HEADER_BYTES} bytes")]
    Length,
    #[error("the header has a command or a transport that is not supported")]
    Unsupported,
    #[error("the header is too short for its addresses")]
    Short,
}

/// What the first 16 bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    transport: Transport,
    /// Bytes that follow.
    length: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// The load balancer's own connection (LOCAL).
    Own,
    /// A client that the load balancer does not know the address of (UNSPEC).
    Unknown,
    Ipv4,
    Ipv6,
}

/// Who is behind a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nobody: it speaks for itself, as when it checks our health.
    Nobody,
    /// A client with an address that it does not tell.
    Somebody,
    /// A client with this address.
    Client(IpAddr),
}

/// Reads a header and no byte more. Returns whom it names.
///
/// # Errors
/// If the connection is lost or the header is refused.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Behind> {
    let refused = |refusal: Refusal| io::Error::new(io::ErrorKind::InvalidData, refusal);
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes).await?;
    let head = head(bytes).map_err(refused)?;
    let mut rest = vec![0; usize::from(head.length)];
    stream.read_exact(&mut rest).await?;
    source(head.transport, &rest).map_err(refused)
}

fn head(bytes: [u8; 16]) -> Result<Head, Refusal> {
    let [.., command, transport, high, low] = bytes;
    if !bytes.starts_with(SIGNATURE) || command >> 4 != 2 {
        return Err(Refusal::Signature);
    }
    let transport = match (command & 0xf, transport) {
        (0, _) => Transport::Own,
        (1, 0) => Transport::Unknown,
        (1, 0x11) => Transport::Ipv4,
        (1, 0x21) => Transport::Ipv6,
        _ => return Err(Refusal::Unsupported),
    };
    let length = u16::from_be_bytes([high, low]);
    if length > HEADER_BYTES { Err(Refusal::Length) } else { Ok(Head { transport, length }) }
}

/// The address before which nothing stands; those of the server, the ports and the extensions follow.
fn source(transport: Transport, rest: &[u8]) -> Result<Behind, Refusal> {
    let address: IpAddr = match transport {
        Transport::Own => return Ok(Behind::Nobody),
        Transport::Unknown => return Ok(Behind::Somebody),
        Transport::Ipv4 => {
            let (addresses, _) = rest.split_first_chunk::<12>().ok_or(Refusal::Short)?;
            let [a, b, c, d, ..] = *addresses;
            [a, b, c, d].into()
        }
        Transport::Ipv6 => {
            let (addresses, _) = rest.split_first_chunk::<36>().ok_or(Refusal::Short)?;
            (*addresses.first_chunk::<16>().ok_or(Refusal::Short)?).into()
        }
    };
    Ok(Behind::Client(address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, transport: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, transport], &length, rest].concat()
    }

    /// The address, and how many bytes were read.
    fn read_all(bytes: &[u8]) -> (Result<Behind, String>, usize) {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(read(&mut rest)).map_err(|error| error.to_string());
        (result, bytes.len() - rest.len())
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x9c, 0x40, 0, 25];

    #[test]
    fn reads_the_client_and_leaves_what_it_says() {
        let v6 = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 20]].concat();
        let mapped = [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1][..], &[0; 20]].concat();
        for (bytes, address) in [
            (header(0x21, 0x11, &V4), Ok("192.0.2.1")),
            (header(0x21, 0x11, &[&V4[..], &[4, 0, 1, 0]].concat()), Ok("192.0.2.1")),
            (header(0x21, 0x21, &v6), Ok("2001:db8::7")),
            (header(0x21, 0x21, &mapped), Ok("192.0.2.1")),
            (header(0x20, 0, &[]), Err(Behind::Nobody)),
            (header(0x20, 0x11, &V4), Err(Behind::Nobody)),
            (header(0x21, 0, &[]), Err(Behind::Somebody)),
        ] {
            let behind =
                address.map_or_else(|behind| behind, |text: &str| Behind::Client(text.parse().unwrap()));
            assert_eq!(
                read_all(&[&bytes[..], b"EHLO c\r\n"].concat()),
                (Ok(behind), bytes.len()),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_header_and_reads_no_more_of_it() {
        let long = header(0x21, 0x11, &[0; 0xffff]);
        for (bytes, refusal, read) in [
            (b"EHLO client.example\r\nMAIL FROM:<>\r\n".to_vec(), "does not begin", 16),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 40000 25\r\n".to_vec(), "does not begin", 16),
            (header(0x11, 0x11, &V4), "does not begin", 16),
            (long, "is longer than", 16),
            (header(0x22, 0x11, &V4), "not supported", 16),
            (header(0x21, 0x12, &V4), "not supported", 16),
            (header(0x21, 0x31, &[0; 216]), "not supported", 16),
            (header(0x21, 0x11, &V4[..11]), "too short", 27),
            (header(0x21, 0x21, &V4), "too short", 28),
            (header(0x21, 0x11, &V4)[..20].to_vec(), "early eof", 20),
            (Vec::new(), "early eof", 0),
        ] {
            let (result, count) = read_all(&bytes);
            let error = result.unwrap_err();
            assert!(error.contains(refusal) && count == read, "{error} after {count} of {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn survives_any_bytes(rest in prop::collection::vec(any::<u8>(), 0..99), begun in any::<bool>()) {
            let bytes = if begun { [&SIGNATURE[..], &rest].concat() } else { rest };
            let _ = read_all(&bytes);
        }
    }
}
