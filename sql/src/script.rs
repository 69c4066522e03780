//! Splits text into statements and commands.

/// What is run as one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub kind: PieceKind,
    /// What stands before it.
    pub comments: &'a str,
    pub text: &'a str,
    /// Where the text starts in that of the script, in bytes.
    pub start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// One statement, without its semicolon.
    Sql,
    /// A line that starts with a backslash, without that.
    Command,
}

/// The pieces of a text, one by one: a syntax error in one leaves those before it alone.
pub(crate) struct Script<'a> {
    text: &'a str,
    rest: &'a str,
    /// Whether a backslash escapes a quote in a string, which depends on the dialect.
    escapes: bool,
}

impl<'a> Script<'a> {
    pub(crate) fn new(text: &'a str, escapes: bool) -> Self {
        // The byte-order mark of some editors, which nobody sees.
        Self { text, rest: text.strip_prefix('\u{feff}').unwrap_or(text), escapes }
    }

    /// Whether each statement of `text` has its semicolon.
    pub(crate) fn is_complete(text: &str, escapes: bool) -> bool {
        let mut rest = text;
        loop {
            rest = &rest[skip_comments(rest)..];
            if rest.is_empty() || rest.starts_with('\\') {
                return true;
            }
            match find_semicolon(rest, escapes) {
                Some(end) => rest = &rest[end + 1..],
                None => return false,
            }
        }
    }
}

/// Where a statement stands in a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Counted from 1.
    pub line: usize,
    /// Characters before it in its line.
    pub indent: usize,
}

impl Position {
    /// Of the byte at `start` of `text`.
    pub(crate) fn of(text: &str, start: usize) -> Self {
        let before = &text[..start];
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self { line: before.matches('\n').count() + 1, indent: line.chars().count() }
    }
}

impl<'a> Iterator for Script<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let space = self.rest.len() - self.rest.trim_start().len();
            let (comments, text) = self.rest[space..].split_at(skip_comments(&self.rest[space..]));
            let start = self.text.len() - text.len();
            if let Some(command) = text.strip_prefix('\\') {
                let (line, rest) = command.split_once('\n').unwrap_or((command, ""));
                self.rest = rest;
                return Some(Piece { kind: PieceKind::Command, comments, text: line.trim_end(), start: start + 1 });
            }
            // A line of its own, which a Unix system takes for the interpreter of a script.
            if text.starts_with("#!") {
                self.rest = text.split_once('\n').map_or("", |(_, rest)| rest);
                continue;
            }
            let end = find_semicolon(text, self.escapes);
            // What is left open is an error, for the parser to name.
            self.rest = end.map_or("", |end| &text[end + 1..]);
            match text[..end.unwrap_or(text.len())].trim_end() {
                "" if end.is_none() => return None,
                "" => continue,
                text => return Some(Piece { kind: PieceKind::Sql, comments, text, start }),
            }
        }
    }
}

/// The length of the space and the comments that `text` starts with.
fn skip_comments(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        at += match rest {
            _ if rest.starts_with(char::is_whitespace) => rest.len() - rest.trim_start().len(),
            _ if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => match comment(rest) {
                Some(length) => length,
                None => return at,
            },
            _ => return at,
        };
    }
}

/// Where the semicolon is that ends the statement at the start of `text`.
fn find_semicolon(text: &str, escapes: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        at += match first {
            ';' => return Some(at),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest)?,
            '\'' | '"' | '`' => quoted(rest, first, escapes)?,
            '$' => dollars(rest)?,
            other => other.len_utf8(),
        };
    }
    None
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
            .map(|piece| match piece.kind {
                PieceKind::Sql => piece.text.to_owned(),
                PieceKind::Command => format!("command {}", piece.text),
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
            assert_eq!(pieces(&format!("{sql}; SELECT 2 ;\n")), [sql, "SELECT 2"], "{sql}");
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
    fn pieces_know_their_place() {
        let text = "SELECT 1;\n  -- ü\n  SELECT 2; \\q";
        let places = |piece: Piece| (piece.start, Position::of(text, piece.start));
        let places: Vec<_> = Script::new(text, false).map(places).collect();
        let position = |line, indent| Position { line, indent };
        assert_eq!(places, [(0, position(1, 0)), (20, position(3, 2)), (31, position(3, 13))]);
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
