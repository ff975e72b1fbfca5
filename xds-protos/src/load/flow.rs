//! Flow collections that go on at a column where YAML ends them: yaml-cpp reads them, and Istio writes them.
//!
//! ```yaml
//! node:
//!   metadata: { "a": 1,
//! "b": 2 }
//! ```

/// The text with every line that goes on with a flow collection moved to the right; none if there is no such line.
///
/// Where lines begin does not change, nor does anything outside of such collections.
pub(super) fn indented(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut moved = false;
    let mut state = State::default();
    for line in text.split_inclusive('\n') {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        let blank = line.trim().is_empty();
        if let Some(parent) = state.block {
            if blank || spaces > parent {
                out.push_str(line);
                continue;
            }
            state.block = None;
        }
        if state.depth > 0 {
            // Within quotes the blanks at a line's start count as one.
            if spaces <= state.indent && !blank {
                out.extend(std::iter::repeat_n(' ', state.indent + 1 - spaces));
                moved = true;
            }
        } else if !blank && state.quote.is_none() {
            state.indent = spaces;
        }
        out.push_str(line);
        state.line(line, spaces);
    }
    moved.then_some(out)
}

#[derive(Default)]
struct State {
    /// How many flow collections are open.
    depth: usize,
    /// The quotation mark that ends the open text.
    quote: Option<char>,
    /// Where the line began that the open collection began in.
    indent: usize,
    /// Within a block of text, where the line began that announced it.
    block: Option<usize>,
}

impl State {
    fn line(&mut self, line: &str, spaces: usize) {
        // Whether a value may begin here, as opposed to within a plain text.
        let mut fresh = true;
        let mut before = ' ';
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if let Some(quote) = self.quote {
                match c {
                    '\\' if quote == '"' => {
                        chars.next();
                    }
                    '\'' if quote == '\'' && chars.peek() == Some(&'\'') => {
                        chars.next();
                    }
                    _ if c == quote => self.quote = None,
                    _ => {}
                }
                (before, fresh) = (c, false);
                continue;
            }
            match c {
                '#' if before.is_whitespace() => return,
                '"' | '\'' if fresh => self.quote = Some(c),
                '{' | '[' if fresh => self.depth += 1,
                '}' | ']' if self.depth > 0 => self.depth -= 1,
                '|' | '>' if fresh && self.depth == 0 => {
                    self.block = Some(spaces);
                    return;
                }
                _ => {}
            }
            let next_is_blank = chars.peek().is_none_or(|next| next.is_whitespace());
            fresh = match c {
                ':' => next_is_blank || self.depth > 0,
                '-' => fresh && next_is_blank,
                ',' | '{' | '[' => self.depth > 0,
                _ if c.is_whitespace() => fresh,
                _ => false,
            };
            before = c;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn lines_of_flow_collections_are_moved() {
        let text = "node:\n  metadata: { \"a\": \"}\",\n\"b\": {\n    \"c\": [1,\n2]\n}\n}\n  id: x\n";
        let moved = "node:\n  metadata: { \"a\": \"}\",\n   \"b\": {\n    \"c\": [1,\n   2]\n   }\n   }\n  id: x\n";
        assert_eq!(indented(text).as_deref(), Some(moved));
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "a: {b: 1,\n  c: 2}\nd: [e]\n",
            "a: |\n  { [ text\n  more\nb: it's {\nc: 'x [\n  y'\n",
            "- - {a: b}\n- x # {\n- y{\n",
            "",
        ] {
            assert_eq!(indented(text), None, "{text}");
        }
    }
}
