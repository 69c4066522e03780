//! Splits text into statements and commands.

/// What is run as one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// One statement, without its semicolon but with the comments before it.
    Sql(&'a str),
    /// A line that starts with a backslash, without that.
    Command(&'a str),
}

/// The pieces of a text, one by one: a syntax error in one leaves those before it alone.
pub(crate) struct Script<'a> {
    rest: &'a str,
    /// Whether a backslash escapes a quote in a string, which depends on the dialect.
    escapes: bool,
}

impl<'a> Script<'a> {
    pub(crate) fn new(text: &'a str, escapes: bool) -> Self {
        Self { rest: text, escapes }
    }

    /// Whether nothing is open: each statement has its semicolon.
    pub(crate) fn is_complete(text: &str, escapes: bool) -> bool {
        let mut script = Script::new(text, escapes);
        loop {
            let start = script.rest.trim_start();
            if start.starts_with('\\') || start.is_empty() {
                return true;
            }
            match find_semicolon(start, escapes) {
                Scan::Semicolon(at) => script.rest = &start[at + 1..],
                Scan::End { open, blank } => return blank && !open,
            }
        }
    }
}

impl<'a> Iterator for Script<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let text = self.rest.trim_start();
            if let Some(command) = text.strip_prefix('\\') {
                let (line, rest) = command.split_once('\n').unwrap_or((command, ""));
                self.rest = rest;
                return Some(Piece::Command(line.trim_end()));
            }
            match find_semicolon(text, self.escapes) {
                // A line of its own, which a Unix system takes for the interpreter of a script.
                _ if text.starts_with("#!") => self.rest = text.split_once('\n').map_or("", |(_, rest)| rest),
                Scan::Semicolon(at) => {
                    self.rest = &text[at + 1..];
                    let sql = &text[..at];
                    if !is_blank(sql, self.escapes) {
                        return Some(Piece::Sql(sql));
                    }
                }
                Scan::End { open, blank } => {
                    self.rest = "";
                    // What is left open is an error, for the parser to name.
                    return (open || !blank).then_some(Piece::Sql(text.trim_end()));
                }
            }
        }
    }
}

/// Where a scan for the end of a statement has ended.
enum Scan {
    /// At this byte.
    Semicolon(usize),
    /// Nowhere: in a string or comment (`open`), and with nothing but space and comments (`blank`).
    End { open: bool, blank: bool },
}

fn is_blank(text: &str, escapes: bool) -> bool {
    matches!(find_semicolon(text, escapes), Scan::End { open: false, blank: true })
}

fn find_semicolon(text: &str, escapes: bool) -> Scan {
    let mut blank = true;
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let closed = match first {
            ';' => return Scan::Semicolon(at),
            '-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => comment(rest),
            '\'' | '"' | '`' => {
                blank = false;
                quoted(rest, first, escapes)
            }
            '$' => {
                blank = false;
                dollars(rest)
            }
            other => {
                blank &= other.is_whitespace();
                Some(other.len_utf8())
            }
        };
        match closed {
            Some(length) => at += length,
            None => return Scan::End { open: true, blank },
        }
    }
    Scan::End { open: false, blank }
}

/// The length of a comment, in which others may stand.
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let pair = text.as_bytes().get(at..at + 2);
        (depth, at) = match pair {
            Some(b"/*") => (depth + 1, at + 2),
            Some(b"*/") => (depth - 1, at + 2),
            _ => (depth, at + 1),
        };
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The length of a string or name in quotes; a doubled quote looks like the next string, which does no harm here.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && escapes && quote == '\'' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// The length of `$tag$ … $tag$`, or of a `$` that starts no string.
fn dollars(text: &str) -> Option<usize> {
    let tag = text[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map(|length| length + 1);
    match tag {
        Some(end) if text[end..].starts_with('$') && !text[1..end].starts_with(|c: char| c.is_ascii_digit()) => {
            let tag = &text[..=end];
            text[tag.len()..].find(tag).map(|body| body + 2 * tag.len())
        }
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<String> {
        Script::new(text, false)
            .map(|piece| match piece {
                Piece::Sql(sql) => sql.to_owned(),
                Piece::Command(command) => format!("command {command}"),
            })
            .collect()
    }

    #[test]
    fn semicolons_within_strings_and_comments_end_nothing() {
        for sql in [
            "SELECT ';'",
            "SELECT 'it''s; fine'",
            "SELECT \";\" FROM `;`",
            "SELECT 1 -- one; more\n + 2",
            "SELECT /* a; /* b; */ c; */ 1",
            "SELECT $$a;b$$",
            "SELECT $tag$ ; $$ ; $tag$",
            "SELECT $1",
            "SELECT 'ü;' AS \"ß;\"",
        ] {
            assert_eq!(pieces(&format!("{sql}; SELECT 2 ;\n")), [sql, "SELECT 2 "], "{sql}");
        }
    }

    #[test]
    fn what_is_empty_is_no_statement() {
        assert_eq!(pieces(" ; ;; -- nothing\n ; /* no */"), Vec::<String>::new());
        assert_eq!(pieces("#!/usr/bin/env datafusion-predict\nSELECT 1"), ["SELECT 1"]);
    }

    #[test]
    fn commands_take_a_line() {
        assert_eq!(pieces("\\d it's\nSELECT 1;\n  \\q"), ["command d it's", "SELECT 1", "command q"]);
        assert_eq!(pieces("SELECT\n\\d;"), ["SELECT\n\\d"]);
    }

    #[test]
    fn what_is_open_goes_to_the_parser() {
        assert_eq!(pieces("SELECT 1; SELECT 'a; b"), ["SELECT 1", "SELECT 'a; b"]);
        assert_eq!(pieces("/* ;"), ["/* ;"]);
    }

    #[test]
    fn backslashes_escape_in_some_dialects() {
        let count = |escapes| Script::new(r"SELECT '\'; SELECT 2", escapes).count();
        assert_eq!((count(false), count(true)), (2, 1));
    }

    #[test]
    fn input_is_complete_after_its_last_semicolon() {
        for text in ["SELECT 1;", "SELECT 1; -- so", "\\d", "", "-- so", ";", "SELECT 1; SELECT 2;\n"] {
            assert!(Script::is_complete(text, false), "{text}");
        }
        for text in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2", "/* so", "SELECT 1 -- ;", "SELECT\n\\d"] {
            assert!(!Script::is_complete(text, false), "{text}");
        }
    }
}
