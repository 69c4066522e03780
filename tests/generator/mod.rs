//! Makes queries from seeds.

use std::path::{Path, PathBuf};

/// What stands for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A call, which becomes a node of the plan.
    Lifted,
    /// A call, which stays a function.
    Bare,
    /// What the model computes, in SQL.
    Arithmetic,
}

/// Statements with calls of the models: `twice(x)` is 2x, `linear(a, b)` is 2a + 3b, `lookup(k)` is 2k and refuses any k but
/// 0 to 9, `linear(t.*)` is `linear` of the columns a and b of t.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    templates: Vec<String>,
    /// Other statements for the arithmetic, where the statement itself is not to be trusted without our fences.
    reference: Option<Vec<String>>,
}

impl Generated {
    pub(crate) fn statements(&self, form: Form) -> Vec<String> {
        let templates = match &self.reference {
            Some(reference) if form == Form::Arithmetic => reference,
            _ => &self.templates,
        };
        templates.iter().map(|template| replace_calls(template, form)).collect()
    }
}

/// `template` with each `#name(…)` replaced.
fn replace_calls(template: &str, form: Form) -> String {
    let Some(start) = template.find('#') else { return template.to_owned() };
    let (before, call) = template.split_at(start);
    let open = call.find('(').expect("a call has arguments");
    let name = &call[1..open];
    let mut depth = 0;
    let mut commas = vec![];
    let mut close = open;
    for (place, c) in call.char_indices().skip(open) {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => {
                close = place;
                break;
            }
            ')' => depth -= 1,
            ',' if depth == 1 => commas.push(place),
            _ => {}
        }
    }
    let mut ends = commas.clone();
    ends.push(close);
    let starts = std::iter::once(open + 1).chain(commas.iter().map(|comma| comma + 1));
    let arguments: Vec<_> =
        starts.zip(&ends).map(|(start, end)| replace_calls(call[start..*end].trim(), form)).collect();
    let number = |argument: &String| format!("CAST({argument} AS DOUBLE)");
    let replaced = match form {
        Form::Arithmetic => match (name, arguments.as_slice()) {
            ("linear", [wildcard]) => {
                let table = wildcard.trim_end_matches(".*");
                format!("(CAST({table}.a AS DOUBLE) * 2 + CAST({table}.b AS DOUBLE) * 3)")
            }
            ("linear", [a, b]) => format!("({} * 2 + {} * 3)", number(a), number(b)),
            (_, [x]) => format!("({} * 2)", number(x)),
            (name, arguments) => unreachable!("{name} of {arguments:?}"),
        },
        Form::Lifted | Form::Bare => format!("predict('{name}', {})", arguments.join(", ")),
    };
    format!("{before}{replaced}{}", replace_calls(&call[close + 1..], form))
}

/// Tables with the same names of columns: id, k, a, b, g.
pub(crate) struct Tables {
    /// The query that gives the rows of each.
    pub(crate) rows: Vec<String>,
    /// Its name, and its file.
    pub(crate) files: Vec<(String, PathBuf)>,
}

/// A source of choices, the same for the same seed.
pub(crate) struct Generator {
    random: fastrand::Rng,
}

/// Tables that the expressions of a query can name, by their aliases.
#[derive(Clone)]
struct Scope(Vec<String>);

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)) }
    }

    pub(crate) fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.random.usize(..choices.len())].clone()
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    /// Three tables in `folder`, the same for the same `number`.
    pub(crate) fn tables(&mut self, folder: &Path, number: u64) -> Tables {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut random = Self::new(number + 1_000_000);
        let mut tables = Tables { rows: vec![], files: vec![] };
        for name in ["t", "u", "w"] {
            let types =
                random.one_of(&[("DOUBLE", "DOUBLE"), ("DOUBLE", "BIGINT"), ("FLOAT", "DOUBLE"), ("INT", "FLOAT")]);
            let count = random.one_of(&[5, 23, 60, 120]);
            let rows: Vec<_> = (0..count).map(|id| random.row(id)).collect();
            let columns = format!(
                "CAST(id AS BIGINT) AS id, CAST(k AS BIGINT) AS k, CAST(a AS {}) AS a, CAST(b AS {}) AS b, g",
                types.0, types.1
            );
            let rows = format!("SELECT {columns} FROM (VALUES {}) AS v(id, k, a, b, g)", rows.join(", "));
            tables.rows.push(rows);
            tables.files.push((name.to_owned(), folder.join(format!("{name}.parquet"))));
        }
        tables
    }

    fn row(&mut self, id: i32) -> String {
        let null_or =
            |generator: &mut Self, value: String| if generator.chance(10) { "NULL".to_owned() } else { value };
        let k = self.random.i32(-2..13).to_string();
        let a = self.random.i32(-9..10).to_string();
        let b = self.random.i32(-4..5).to_string();
        let g = self.one_of(&["'x'", "'y'", "'z'"]).to_owned();
        let values = [k, a, b, g].map(|value| null_or(self, value));
        format!("({id}, {})", values.join(", "))
    }

    pub(crate) fn query(&mut self, _tables: &Tables) -> Generated {
        let templates = match self.random.u32(..100) {
            0..8 => return self.change_rows(),
            8..14 => self.prepared(),
            _ => vec![self.select(2)],
        };
        Generated { templates, reference: None }
    }

    /// A query with any number of columns.
    fn select(&mut self, depth: u32) -> String {
        match self.random.u32(..100) {
            0..10 => self.set_operation(depth),
            10..18 => self.aggregate(depth),
            18..23 => self.of_aggregate(),
            23..28 => self.window(),
            28..38 => self.of_subquery(depth),
            38..46 => self.top(),
            46..52 => self.common_table(),
            _ => self.plain(depth),
        }
    }

    fn plain(&mut self, depth: u32) -> String {
        let (from, scope) = self.from();
        let count = self.one_of(&[1, 1, 2, 3]);
        let mut columns: Vec<_> = (0..count).map(|_| self.number(&scope, 2)).collect();
        columns.push(format!("{}.id", self.alias(&scope)));
        if self.chance(25) {
            columns.push(self.condition(&scope, 1));
        }
        if self.chance(15) {
            let alias = self.alias(&scope);
            columns.push(format!("#linear({alias}.*)"));
        }
        let distinct = if self.chance(8) { "DISTINCT " } else { "" };
        let filter = self.filter(&scope, depth);
        let columns: Vec<_> = columns.iter().enumerate().map(|(i, column)| format!("{column} AS c{i}")).collect();
        format!("SELECT {distinct}{} FROM {from}{filter}", columns.join(", "))
    }

    /// FROM, with one to three tables.
    fn from(&mut self) -> (String, Scope) {
        let first = self.table();
        let mut scope = Scope(vec!["r0".to_owned()]);
        let mut from = format!("{first} r0");
        let joins = self.one_of(&[0, 0, 1, 1, 1, 2]);
        for i in 1..=joins {
            let (table, alias) = (self.table(), format!("r{i}"));
            let kind = self.one_of(&["JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let other = self.alias(&scope);
            let key = self.one_of(&["id", "k", "k", "g", "id"]);
            let other_key = if key == "g" { "g" } else { self.one_of(&["id", "k"]) };
            let mut on = format!("{other}.{other_key} = {alias}.{key}");
            if self.chance(10) {
                on = format!("{other}.{} < {alias}.{}", self.one_of(&["a", "b", "k"]), self.one_of(&["a", "b", "id"]));
            }
            scope.0.push(alias.clone());
            if self.chance(20) {
                let one = Scope(vec![if self.chance(50) { alias.clone() } else { other }]);
                on = format!("{on} AND {}", self.condition(&one, 1));
            } else if self.chance(10) {
                on = format!("{on} AND {}", self.condition(&scope, 1));
            } else if self.chance(5) && kind != "FULL JOIN" {
                on = format!("#twice({other}.k) = #twice({alias}.k)");
            }
            from = format!("{from} {kind} {table} {alias} ON {on}");
        }
        (from, scope)
    }

    fn table(&mut self) -> &'static str {
        self.one_of(&["t", "u", "w"])
    }

    fn alias(&mut self, scope: &Scope) -> String {
        self.one_of(&scope.0)
    }

    fn filter(&mut self, scope: &Scope, depth: u32) -> String {
        if self.chance(30) {
            return String::new();
        }
        let count = self.one_of(&[1, 1, 2, 3]);
        let mut conditions: Vec<_> = (0..count).map(|_| self.condition(scope, 2)).collect();
        if depth > 0 && self.chance(20) {
            conditions.push(self.subquery_condition(scope));
        }
        format!(" WHERE {}", conditions.join(" AND "))
    }

    fn subquery_condition(&mut self, scope: &Scope) -> String {
        let (outer, table) = (self.alias(scope), self.table());
        let inner = Scope(vec!["s".to_owned()]);
        let condition = self.condition(&inner, 1);
        match self.random.u32(..4) {
            0 => format!("{outer}.k IN (SELECT s.k FROM {table} s WHERE {condition})"),
            1 => format!("{outer}.id NOT IN (SELECT s.id FROM {table} s WHERE {condition})"),
            2 => {
                let not = if self.chance(40) { "NOT " } else { "" };
                format!("{not}EXISTS (SELECT 1 FROM {table} s WHERE s.k = {outer}.k AND {condition})")
            }
            _ => format!("#twice({outer}.a) > (SELECT avg(#twice(s.a)) FROM {table} s WHERE {condition})"),
        }
    }

    /// An expression of numbers.
    fn number(&mut self, scope: &Scope, depth: u32) -> String {
        let alias = self.alias(scope);
        if depth == 0 {
            return match self.random.u32(..8) {
                0 => self.random.i32(-5..6).to_string(),
                1 => format!("{alias}.id"),
                2 => format!("{alias}.k"),
                3 | 4 => format!("{alias}.b"),
                _ => format!("{alias}.a"),
            };
        }
        match self.random.u32(..100) {
            0..35 => format!("#twice({})", self.number(scope, depth - 1)),
            35..55 => format!("#linear({}, {})", self.number(scope, depth - 1), self.number(scope, depth - 1)),
            55..65 => format!("({} + {})", self.number(scope, depth - 1), self.number(scope, depth - 1)),
            65..80 => self.case(scope, depth - 1),
            80..88 => format!("CASE WHEN {alias}.k BETWEEN 0 AND 9 THEN #lookup({alias}.k) ELSE {alias}.a END"),
            88..94 => format!("COALESCE({}, {})", self.number(scope, depth - 1), self.number(scope, depth - 1)),
            _ => self.number(scope, 0),
        }
    }

    /// CASE with two to six branches, with or without a base.
    fn case(&mut self, scope: &Scope, depth: u32) -> String {
        let count = if depth == 0 && self.chance(8) { 24 } else { self.random.u32(1..6) };
        let otherwise = if self.chance(60) { format!(" ELSE {}", self.number(scope, depth)) } else { String::new() };
        let alias = self.alias(scope);
        if self.chance(40) {
            let same = self.number(scope, depth);
            let branches: String = (0..count)
                .map(|i| {
                    let value =
                        if self.chance(60) { format!("#twice({same}) * {i}") } else { self.number(scope, depth) };
                    format!(" WHEN {i} THEN {value}")
                })
                .collect();
            return format!("CASE {alias}.k % {count}{branches}{otherwise} END");
        }
        let branches: String = (0..count)
            .map(|_| format!(" WHEN {} THEN {}", self.condition(scope, depth), self.number(scope, depth)))
            .collect();
        format!("CASE{branches}{otherwise} END")
    }

    /// A condition.
    fn condition(&mut self, scope: &Scope, depth: u32) -> String {
        let alias = self.alias(scope);
        let compare = self.one_of(&[">", "<", ">=", "<>", "="]);
        if depth == 0 {
            return match self.random.u32(..5) {
                0 => format!("{alias}.k {compare} {}", self.random.i32(-1..11)),
                1 => format!("{alias}.g = 'x'"),
                2 => format!("{alias}.b IS NULL"),
                _ => format!("{alias}.a {compare} {}", self.random.i32(-6..7)),
            };
        }
        match self.random.u32(..100) {
            0..35 => format!("{} {compare} {}", self.number(scope, 1), self.random.i32(-12..13)),
            35..45 => format!("({} AND {})", self.condition(scope, depth - 1), self.condition(scope, depth - 1)),
            45..57 => format!("({} OR {})", self.condition(scope, depth - 1), self.condition(scope, depth - 1)),
            57..63 => format!("NOT ({})", self.condition(scope, depth - 1)),
            63..70 => format!("({alias}.k BETWEEN 0 AND 9 AND #lookup({alias}.k) {compare} 7)"),
            70..77 => {
                format!("({alias}.k IS NULL OR {alias}.k < 0 OR {alias}.k > 9 OR #lookup({alias}.k) {compare} 7)")
            }
            77..82 => format!("{} IS NULL", self.number(scope, 1)),
            82..88 => format!("#linear({alias}.*) {compare} {}", self.random.i32(-12..13)),
            _ => self.condition(scope, 0),
        }
    }

    fn aggregate(&mut self, depth: u32) -> String {
        let (from, scope) = self.from();
        let alias = self.alias(&scope);
        let filter = self.filter(&scope, depth);
        let key = match self.random.u32(..6) {
            0 => format!("{alias}.g"),
            1 => format!("{alias}.k"),
            2 => format!("{alias}.k, {alias}.g"),
            3 => format!("#twice({alias}.k), {alias}.k"),
            4 => format!("#twice({alias}.a)"),
            _ => format!("CUBE ({alias}.g, #twice({alias}.k))"),
        };
        let of_key = self.one_of(&["min", "max", "first_value"]);
        let values = [
            format!("sum({})", self.number(&scope, 1)),
            format!("sum(#lookup({alias}.k)) FILTER (WHERE {alias}.k BETWEEN 0 AND 9)"),
            format!("count(*) FILTER (WHERE {})", self.condition(&scope, 1)),
            format!("max({}) FILTER (WHERE {})", self.number(&scope, 2), self.condition(&scope, 1)),
            format!("{of_key}(#twice({alias}.k))"),
            format!("count(DISTINCT {})", self.number(&scope, 1)),
        ];
        // The first value is the same for all rows of a group only where the group is of that key.
        let usable: Vec<_> = values
            .iter()
            .filter(|value| !value.starts_with("first_value") || key.starts_with(&format!("{alias}.k")))
            .collect();
        let value = self.one_of(&usable).clone();
        let other = self.one_of(&usable).clone();
        let having = if self.chance(20) { format!(" HAVING max(#twice({alias}.a)) > 2") } else { String::new() };
        let keys = if key.starts_with("CUBE") { format!("{alias}.g, #twice({alias}.k)") } else { key.clone() };
        format!("SELECT {keys}, {value} AS v0, {other} AS v1 FROM {from}{filter} GROUP BY {key}{having}")
    }

    /// An aggregate of a join, joined again.
    fn of_aggregate(&mut self) -> String {
        let (from, scope) = self.from();
        let (alias, other) = (self.alias(&scope), self.alias(&scope));
        let key = self.one_of(&["k", "id"]);
        let value = self.number(&Scope(vec![other]), 1);
        let below = format!(
            "SELECT {alias}.{key} AS k, sum({value}) AS a, min({alias}.b) AS b FROM {from} GROUP BY {alias}.{key}"
        );
        let (table, join) = (self.table(), self.one_of(&["JOIN", "LEFT JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"]));
        let condition = self.condition(&Scope(vec!["q".to_owned()]), 1).replace("q.g", "'x'").replace("q.id", "q.k");
        format!(
            "SELECT q.k, q.a, #twice(q.b) AS p FROM ({below}) q {join} {table} z ON q.k = z.k AND z.id < 9 WHERE {condition}"
        )
    }

    fn window(&mut self) -> String {
        let (from, scope) = self.from();
        let alias = self.alias(&scope);
        let value = self.number(&scope, 1);
        let over = format!("PARTITION BY {alias}.g ORDER BY #twice({alias}.a), {alias}.id");
        format!(
            "SELECT {alias}.id, sum({value}) OVER (PARTITION BY {alias}.g) AS s, rank() OVER (ORDER BY {value}) AS r, sum(#lookup({alias}.k)) FILTER (WHERE {alias}.k BETWEEN 0 AND 9) OVER (PARTITION BY {alias}.g) AS f, min(#twice({alias}.b)) OVER ({over}) AS m FROM {from}"
        )
    }

    fn set_operation(&mut self, depth: u32) -> String {
        let operation = self.one_of(&["UNION ALL", "UNION", "EXCEPT", "INTERSECT"]);
        let part = |generator: &mut Self| {
            let table = generator.table();
            let scope = Scope(vec!["r0".to_owned()]);
            let value = generator.number(&scope, 1);
            let filter = generator.filter(&scope, depth - 1);
            format!("SELECT CAST({value} AS DOUBLE) AS v, r0.k FROM {table} r0{filter}")
        };
        format!("{} {operation} {}", part(self), part(self))
    }

    /// A query over one that gives predictions under names of its own.
    fn of_subquery(&mut self, depth: u32) -> String {
        let (from, scope) = self.from();
        let alias = self.alias(&scope);
        let (a, b) = (self.number(&scope, 1), self.number(&scope, 1));
        let filter = self.filter(&scope, depth - 1);
        let below = format!("SELECT {alias}.id, {alias}.k, {a} AS a, {b} AS b, {alias}.g FROM {from}{filter}");
        let above = Scope(vec!["q".to_owned()]);
        let value = self.number(&above, 1);
        let filter = self.filter(&above, 0);
        if self.chance(40) {
            let table = self.table();
            return format!("SELECT q.id, z.id, {value} AS v FROM ({below}) q JOIN {table} z ON q.id = z.id{filter}");
        }
        format!("SELECT q.id, q.a, {value} AS v FROM ({below}) q{filter}")
    }

    fn common_table(&mut self) -> String {
        let scope = Scope(vec!["r0".to_owned()]);
        let table = self.table();
        let (value, filter) = (self.number(&scope, 1), self.filter(&scope, 0));
        let with = format!("WITH c AS (SELECT r0.id, r0.k, {value} AS p FROM {table} r0{filter})");
        format!("{with} SELECT x.id, x.p, y.p, #twice(y.k) FROM c x JOIN c y ON x.k = y.k AND x.p <= y.p")
    }

    /// The natural top-k query: ordered by what the SELECT list does not name.
    fn top(&mut self) -> String {
        let (from, scope) = self.from();
        let alias = self.alias(&scope);
        let filter = self.filter(&scope, 1);
        let by = if self.chance(60) { format!("#linear({alias}.*)") } else { self.number(&scope, 2) };
        let direction = self.one_of(&["", " DESC", " DESC NULLS LAST", " NULLS FIRST"]);
        let ids: Vec<_> = scope.0.iter().map(|alias| format!("{alias}.id")).collect();
        let ids = ids.join(", ");
        let offset = if self.chance(20) { " OFFSET 2" } else { "" };
        format!(
            "SELECT {ids} FROM {from}{filter} ORDER BY {by}{direction}, {ids} LIMIT {}{offset}",
            self.random.u32(1..9)
        )
    }

    fn prepared(&mut self) -> Vec<String> {
        let scope = Scope(vec!["r0".to_owned()]);
        let (table, value) = (self.table(), self.number(&scope, 1));
        let call = self.one_of(&["#linear(r0.*)", "#twice(r0.a)", "#linear(r0.a, r0.b)"]);
        vec![
            format!("PREPARE p AS SELECT r0.id, {value} AS v FROM {table} r0 WHERE {call} > $1"),
            format!("EXECUTE p({})", self.random.i32(-9..10)),
            format!("EXECUTE p({})", self.random.i32(-9..10)),
        ]
    }

    /// DELETE or UPDATE. The reference makes the rows anew: DataFusion deletes all of them where the condition folds to
    /// false (apache/datafusion#24654), and by EXPLAIN.
    fn change_rows(&mut self) -> Generated {
        let scope = Scope(vec!["d".to_owned()]);
        let (table, condition) = (self.table(), self.condition(&scope, 2));
        let changed = format!("COALESCE({condition}, false)");
        let (change, rows) = if self.chance(50) {
            (format!("DELETE FROM d WHERE {condition}"), format!("SELECT * FROM d WHERE NOT {changed}"))
        } else {
            let value = self.number(&scope, 1);
            let columns = format!("id, k, CASE WHEN {changed} THEN {value} ELSE a END, b, g");
            (format!("UPDATE d SET a = {value} WHERE {condition}"), format!("SELECT {columns} FROM d"))
        };
        let create = format!("CREATE TABLE d AS SELECT * FROM {table}");
        let sum = "SELECT count(*), sum(a) FROM d".to_owned();
        let statements = |change: [String; 2], rows: &str| {
            let [change, count] = change;
            vec![create.clone(), change, sum.clone(), count, rows.to_owned()]
        };
        Generated {
            templates: statements([format!("EXPLAIN {change}"), change], "SELECT * FROM d"),
            reference: Some(vec![
                create.clone(),
                "CREATE TABLE e AS SELECT * FROM d WHERE false".to_owned(),
                sum.clone(),
                format!("SELECT count(*) FROM d WHERE {changed}"),
                format!("INSERT INTO e {rows}"),
                "SELECT * FROM e".to_owned(),
            ]),
        }
    }
}
