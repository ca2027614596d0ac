//! Lines of text, as Stratum speaks: one JSON value each, which is not looked into here.

use super::{Cut, Frame, FrameError};
use crate::limits::LINE_BYTES_MAX;

/// Cuts lines.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Bytes at the front that are known to hold no end of line.
    looked: usize,
}

impl Lines {
    /// The next line, if its end is there. A line with its end has at most [`LINE_BYTES_MAX`] bytes.
    pub fn cut(&mut self, buf: &[u8]) -> Result<Cut, FrameError> {
        let blank = blank(buf);
        if blank > 0 {
            return Ok(Cut::Skip(blank));
        }
        let within = &buf[..buf.len().min(LINE_BYTES_MAX)];
        let fresh = within.get(self.looked..).unwrap_or_default();
        if let Some(end) = fresh.iter().position(|&byte| byte == b'\n') {
            let end = self.looked + end;
            self.looked = 0;
            return Ok(Cut::Frame { frame: Frame::Line(buf[..end].trim_ascii_end().into()), used: end + 1 });
        }
        if within.len() == LINE_BYTES_MAX {
            return Err(FrameError::LineTooLong(LINE_BYTES_MAX));
        }
        self.looked = within.len();
        Ok(Cut::Need(buf.len() + 1))
    }
}

/// White space at the front: ends of lines, of empty ones too, and what some firmware puts before its JSON.
pub(super) fn blank(buf: &[u8]) -> usize {
    buf.len() - buf.trim_ascii_start().len()
}

#[cfg(test)]
mod tests {
    use super::super::{Framer, tests::frames};
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Result<Vec<String>, FrameError> {
        let frames = frames(&mut Framer::line(), chunks)?;
        let text = |frame| match frame {
            Frame::Line(line) => String::from_utf8_lossy(&line).into_owned(),
            other => panic!("{other:?}"),
        };
        Ok(frames.into_iter().map(text).collect())
    }

    #[test]
    fn lines_are_cut_at_every_offset_as_at_once() {
        let text = b"{\"id\":1}\r\n\r\n  {\"id\": 2}\t\n\n[]\n null\nno end";
        let want = ["{\"id\":1}", "{\"id\": 2}", "[]", "null"].map(String::from).to_vec();
        assert_eq!(lines(&[text]), Ok(want.clone()));
        for at in 0..=text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), Ok(want.clone()), "cut at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(&bytes), Ok(want));
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let mut line = vec![b'x'; LINE_BYTES_MAX - 1];
        line.push(b'\n');
        assert_eq!(lines(&[&line]).map(|lines| lines[0].len()), Ok(LINE_BYTES_MAX - 1));
        line.insert(0, b'x');
        assert_eq!(lines(&[&line]), Err(FrameError::LineTooLong(LINE_BYTES_MAX)));
    }

    #[test]
    fn a_line_of_a_megabyte_is_refused_without_asking_for_more_than_the_limit() {
        let mut lines = Lines::default();
        let line = vec![b'x'; 1 << 20];
        for fed in 0..LINE_BYTES_MAX {
            assert_eq!(lines.cut(&line[..fed]), Ok(Cut::Need(fed + 1)));
        }
        assert_eq!(lines.cut(&line[..LINE_BYTES_MAX]), Err(FrameError::LineTooLong(LINE_BYTES_MAX)));
        assert_eq!(Lines::default().cut(&line), Err(FrameError::LineTooLong(LINE_BYTES_MAX)));
    }

    #[test]
    fn white_space_is_dropped_without_end() {
        assert_eq!(Lines::default().cut(&[b' '; 1 << 16]), Ok(Cut::Skip(1 << 16)));
        assert_eq!(Lines::default().cut(b""), Ok(Cut::Need(1)));
    }
}
