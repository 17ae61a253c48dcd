// SPDX-License-Identifier: Apache-2.0
//! Cuts strings and lists to the bounds of `Mail.msg` and remembers whether it cut anything.
//!
//! Every string it returns fits its bound and holds no NUL; the caller decides which bound applies.

/// Records whether anything was cut so far.
#[derive(Default)]
pub(super) struct Bounds {
    pub(super) cut: bool,
}

impl Bounds {
    pub(super) fn cut_if(&mut self, condition: bool) {
        self.cut |= condition;
    }

    /// The first `max` bytes.
    pub(super) fn bytes<'x>(&mut self, bytes: &'x [u8], max: usize) -> &'x [u8] {
        self.cut_if(bytes.len() > max);
        bytes.get(..max).unwrap_or(bytes)
    }

    /// One line of at most `max` bytes. Control characters become spaces; NUL, which ends a ROS string, becomes U+FFFD.
    pub(super) fn line(&mut self, text: &str, max: usize) -> String {
        self.collect(text, max, |c| if c.is_control() { ' ' } else { c })
    }

    /// Text of at most `max` bytes with LF line ends.
    pub(super) fn text(&mut self, text: &str, max: usize) -> String {
        let lines = text.replace("\r\n", "\n");
        self.collect(&lines, max, |c| c)
    }

    fn collect(&mut self, text: &str, max: usize, map: impl Fn(char) -> char) -> String {
        let mut result = String::with_capacity(text.len().min(max));
        for c in text.chars() {
            let c = if c == '\0' { char::REPLACEMENT_CHARACTER } else { map(c) };
            if result.len() + c.len_utf8() > max {
                self.cut = true;
                break;
            }
            result.push(c);
        }
        result
    }
}
