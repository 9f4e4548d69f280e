//! The program in every sandbox: holds the pod's namespaces, and can reach a port inside them.
//!
//! - `pause`: waits for ever, reaping orphans (it is PID 1 when the pod's containers share a PID namespace). Ends
//!   with 0 on SIGTERM and SIGINT.
//! - `pause isolate`: leaves the network it was started in for a new one of its own, gives up all privileges, then does
//!   the same. Ends with 1 when that is not allowed.
//! - `pause forward PORT`: connects standard input and output to `127.0.0.1:PORT` (then `[::1]:PORT`), until the far
//!   end closes. Run by `docker exec` in a sandbox for port-forward. Ends with 1 and a line on standard error when
//!   nobody listens.
//! - `pause chroot DIRECTORY PROGRAM [ARGUMENT...]`: becomes another program, with that directory as its root. Run by
//!   `docker exec` in the container that changes the machine's network, where the machine's own programs are mounted.
//!   Ends with 127 when there is no such program.
//!
//! It is a static executable of about a kilobyte without any library, because the image that holds it is made by
//! coracle itself and must run on any kernel of the architecture. That is why this file, compiled on its own by
//! `build.rs`, makes system calls directly; it is the only code in the workspace that is `unsafe`, and it shares no
//! address space with the rest.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

/// System call numbers.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const SIGPROCMASK: usize = 14;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SHUTDOWN: usize = 48;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const CHDIR: usize = 80;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const CHROOT: usize = 161;
    pub const EXIT_GROUP: usize = 231;
    pub const UNSHARE: usize = 272;
}

/// System call numbers.
#[cfg(target_arch = "aarch64")]
mod number {
    pub const CHDIR: usize = 49;
    pub const CHROOT: usize = 51;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const UNSHARE: usize = 97;
    pub const KILL: usize = 129;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const SHUTDOWN: usize = 210;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

// The kernel enters here with the stack pointer at argc, argv[0], ..., argv[argc - 1], 0.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    main = sym main,
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x0, sp",
    "bl {main}",
    main = sym main,
);

const SIGINT: usize = 2;
const SIGKILL: usize = 9;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const CLONE_NEWNET: usize = 0x4000_0000;
/// Who the program is without privileges: the user and group of its image.
const NOBODY: usize = 65535;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: usize = 1;
const SHUT_WR: usize = 1;
const BUFFER: usize = 64 * 1024;

/// What is on its way; of its own in each of the two processes that copy.
static mut DATA: [u8; BUFFER] = [0; BUFFER];

extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel put argc there, followed by as many pointers to strings that end in 0.
    unsafe {
        match *stack {
            0 | 1 => pause(),
            2 if equal(*stack.add(2) as *const u8, b"isolate\0") => isolate(),
            3 if equal(*stack.add(2) as *const u8, b"forward\0") => {
                match port(*stack.add(3) as *const u8) {
                    Some(port) => forward(port),
                    None => fail(b"not a port\n"),
                }
            }
            4.. if equal(*stack.add(2) as *const u8, b"chroot\0") => become_program(stack.add(3)),
            _ => fail(b"usage: pause [isolate | forward PORT | chroot DIRECTORY PROGRAM [ARGUMENT...]]\n"),
        }
    }
}

/// Makes a network of its own, empty but for a loopback device that is down; whoever started the sandbox connects it.
fn isolate() -> ! {
    // SAFETY: no memory is involved. Without a user id of 0 the kernel takes all capabilities away.
    let isolated = unsafe {
        call4(number::UNSHARE, CLONE_NEWNET, 0, 0, 0) == 0
            && call4(number::SETRESGID, NOBODY, NOBODY, NOBODY, 0) == 0
            && call4(number::SETRESUID, NOBODY, NOBODY, NOBODY, 0) == 0
    };
    if !isolated {
        fail(b"cannot make a network of its own\n")
    }
    pause()
}

/// Becomes a program below another root.
///
/// # Safety
/// `arguments` must point to pointers to strings that end in 0: the root, the program, its arguments, and then no pointer.
unsafe fn become_program(arguments: *const usize) -> ! {
    let slash = b"/\0".as_ptr() as usize;
    let environment: [usize; 1] = [0];
    // SAFETY: the caller answers for the arguments; the kernel only reads them. It returns from the last call only if that
    // failed.
    unsafe {
        let (root, program) = (*arguments, arguments.add(1));
        if call4(number::CHROOT, root, 0, 0, 0) == 0 && call4(number::CHDIR, slash, 0, 0, 0) == 0 {
            call4(number::EXECVE, *program, program as usize, &raw const environment as usize, 0);
        }
    }
    write_error(b"cannot run it\n");
    exit(127)
}

/// Waits for signals. They are blocked and taken one by one, so no handlers are needed; the kernel keeps blocked
/// signals even for a PID 1.
fn pause() -> ! {
    let set: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const set as usize;
    // SAFETY: `set` outlives the calls, which only read its 8 bytes.
    unsafe { call4(number::SIGPROCMASK, SIG_BLOCK, set, 0, 8) };
    loop {
        // SAFETY: as above.
        match unsafe { call4(number::SIGTIMEDWAIT, set, 0, 0, 8) } as usize {
            SIGINT | SIGTERM => exit(0),
            // SAFETY: no status or usage is asked for, so nothing is written.
            SIGCHLD => while unsafe { call4(number::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {},
            _ => {}
        }
    }
}

/// Copies both ways, each in a process of its own, so that a side that does not read cannot hold up the other direction.
fn forward(port: u16) -> ! {
    let Some(socket) = connect(port) else {
        fail(b"connection refused\n")
    };
    // SAFETY: with these flags clone is a plain fork; parent and child share no memory.
    let child = unsafe { call5(number::CLONE, SIGCHLD, 0, 0, 0, 0) };
    if child < 0 {
        fail(b"cannot fork\n")
    }
    if child == 0 {
        copy(0, socket);
        // SAFETY: no memory is involved.
        unsafe { call4(number::SHUTDOWN, socket, SHUT_WR, 0, 0) };
        exit(0)
    }
    copy(socket, 1);
    // SAFETY: no memory is involved.
    unsafe { call4(number::KILL, child as usize, SIGKILL, 0, 0) };
    exit(0)
}

/// A connection to the port on the loopback address, IPv4 first.
fn connect(port: u16) -> Option<usize> {
    let [high, low] = port.to_be_bytes();
    let [v4, v4_high] = AF_INET.to_ne_bytes();
    let [v6, v6_high] = AF_INET6.to_ne_bytes();
    // struct sockaddr_in and sockaddr_in6 as bytes.
    let ipv4 = [v4, v4_high, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let ipv6 = [
        v6, v6_high, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0,
        0, 0,
    ];
    connect_to(AF_INET, &ipv4).or_else(|| connect_to(AF_INET6, &ipv6))
}

fn connect_to(family: u16, address: &[u8]) -> Option<usize> {
    // SAFETY: `address` outlives the call, which reads the length given.
    unsafe {
        let socket = call4(number::SOCKET, usize::from(family), SOCK_STREAM, 0, 0);
        if socket < 0 {
            return None;
        }
        let pointer = address.as_ptr() as usize;
        let done = call4(number::CONNECT, socket as usize, pointer, address.len(), 0);
        (done == 0).then_some(socket as usize)
    }
}

/// Copies until end of file or an error on either side.
fn copy(from: usize, to: usize) {
    let data = &raw mut DATA as usize;
    loop {
        // SAFETY: the kernel writes at most `BUFFER` bytes to `DATA`, which nobody else uses in this process.
        let length = unsafe { call4(number::READ, from, data, BUFFER, 0) };
        if length <= 0 {
            return;
        }
        let (mut start, end) = (data, data + length as usize);
        while start < end {
            // SAFETY: the kernel reads bytes of `DATA` that were written above.
            let written = unsafe { call4(number::WRITE, to, start, end - start, 0) };
            if written <= 0 {
                return;
            }
            start += written as usize;
        }
    }
}

fn fail(message: &[u8]) -> ! {
    write_error(message);
    exit(1)
}

fn write_error(message: &[u8]) {
    // SAFETY: the kernel reads the bytes of `message`.
    unsafe { call4(number::WRITE, 2, message.as_ptr() as usize, message.len(), 0) };
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: no memory is involved.
        unsafe { call4(number::EXIT_GROUP, code, 0, 0, 0) };
    }
}

/// Whether the string at `text` is `expect`, both ending in 0.
///
/// # Safety
/// `text` must end in 0.
unsafe fn equal(text: *const u8, expect: &[u8]) -> bool {
    for (index, byte) in expect.iter().enumerate() {
        // SAFETY: a difference, so also the end of `text`, ends the loop.
        if unsafe { *text.add(index) } != *byte {
            return false;
        }
    }
    true
}

/// The number at `text`, if it is a port.
///
/// # Safety
/// `text` must end in 0.
unsafe fn port(mut text: *const u8) -> Option<u16> {
    let mut port: u16 = 0;
    loop {
        // SAFETY: the loop ends with the string.
        match unsafe { *text } {
            0 => return (port > 0).then_some(port),
            digit @ b'0'..=b'9' => {
                port = port.checked_mul(10)?.checked_add(u16::from(digit - b'0'))?;
            }
            _ => return None,
        }
        // SAFETY: it did not end yet.
        text = unsafe { text.add(1) };
    }
}

unsafe fn call4(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: the caller answers for the arguments.
    unsafe { call5(number, a, b, c, d, 0) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn call5(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller answers for the arguments; the kernel changes rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn call5(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller answers for the arguments.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    result
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    exit(2)
}
