//! Where else the proxy's port is open: it must be on loopback addresses alone.

#![expect(clippy::disallowed_methods, reason = "runs on the command line, before anything listens")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::Outcome;

/// How long an address of this machine may take to refuse.
const LIMIT: Duration = Duration::from_millis(500);

/// Looks for listeners on the port that others on the network could reach: in the kernel's tables. Only where there
/// are none the address that this machine has to the world is tried: somebody else's program may listen there.
pub(super) fn outcome(port: u16) -> Outcome {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).ok());
    let mut open: Vec<IpAddr> = tables.iter().flatten().flat_map(|table| listening(table, port)).collect();
    if tables.iter().all(Option::is_none) {
        let answers = |ip: &IpAddr| TcpStream::connect_timeout(&SocketAddr::new(*ip, port), LIMIT).is_ok();
        open.extend(outward().into_iter().filter(answers));
    }
    open.retain(|ip| !is_loopback(*ip));
    open.sort_unstable();
    open.dedup();
    let seen = if open.is_empty() {
        "only loopback".to_owned()
    } else {
        open.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let expected = "only loopback".to_owned();
    Outcome {
        about: "network",
        name: "addresses with this port open",
        expected,
        seen,
        passed: open.is_empty(),
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

/// The addresses that this machine would use towards the world; nothing is sent.
fn outward() -> Vec<IpAddr> {
    let towards = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses for documentation (RFC 5737, RFC 3849).
    let four = towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let six = towards(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    four.into_iter().chain(six).collect()
}

/// The addresses of a table of the kernel that listen on a port (proc(5): `/proc/net/tcp`; an address is
/// hexadecimal, in words of the machine's order).
fn listening(table: &str, port: u16) -> Vec<IpAddr> {
    const LISTEN: &str = "0A";
    let address = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_ascii_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let (ip, at) = local.split_once(':')?;
        (state == LISTEN && u16::from_str_radix(at, 16).ok()? == port).then_some(())?;
        let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
        match ip.len() {
            8 => Some(IpAddr::from(word(ip)?)),
            32 => {
                let mut bytes = [0; 16];
                for (at, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                    bytes.copy_from_slice(&word(ip.get(8 * at..8 * at + 8)?)?);
                }
                Some(IpAddr::from(bytes))
            }
            _ => None,
        }
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_of_the_kernel_are_read() {
        let four = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000\n   \
                    1: 00000000:1F90 00000000:0000 0A 0\n   2: 0100007F:1F91 0:0 0A 0\n   3: 0100007F:1F90 0:0 01 0\n";
        assert_eq!(listening(four, 8080), [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0])]);
        let six = "   0: 00000000000000000000000001000000:1F90 0:0 0A 0\n";
        assert_eq!(listening(six, 8080), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert!(listening("x\n1: zz:zz 0 0A", 8080).is_empty());
    }

    #[test]
    fn a_listener_at_another_address_is_told_and_left_alone() {
        // Without a way to the world there is no such address.
        let Some(listener) = outward().into_iter().find_map(|ip| TcpListener::bind((ip, 0)).ok()) else {
            return;
        };
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(outcome(address.port()).seen, address.ip().to_string());
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_listener_on_every_address_is_found() {
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(outcome(port(&own)).passed);
        let all = TcpListener::bind("0.0.0.0:0").unwrap();
        assert!(!outcome(port(&all)).passed);
    }
}
