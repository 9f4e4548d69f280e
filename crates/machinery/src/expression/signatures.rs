//! Which functions and operators there are, with the types they take and give: the language's own, those of its string and
//! list extensions, and those that upstream adds.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::Type;

/// One way to call a function. For a method, the first type is that of what it is called on.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) method: bool,
    pub(super) arguments: Vec<Type<'static>>,
    pub(super) result: Type<'static>,
}

/// All ways to call the functions of a name.
pub(super) fn of(name: &str) -> Option<&'static [Signature]> {
    static ALL: LazyLock<HashMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            for name in line.split('(').next().unwrap_or_default().split(' ') {
                let method = name.starts_with('.');
                let (arguments, result) = read(&line[line.find('(').unwrap_or_default()..]);
                all.entry(name.trim_start_matches('.')).or_default().push(Signature { method, arguments, result });
            }
        }
        all
    });
    ALL.get(name).map(Vec::as_slice)
}

/// A name with a dot in front is that of a method, and `A` and `B` are any types, each the same throughout; `N` is any
/// number.
const TABLE: &str = "
    _==_ _!=_(A, A) bool
    _<_ _<=_ _>_ _>=_(bool, bool) bool
    _<_ _<=_ _>_ _>=_(N, N) bool
    _<_ _<=_ _>_ _>=_(string, string) bool
    _<_ _<=_ _>_ _>=_(bytes, bytes) bool
    _<_ _<=_ _>_ _>=_(timestamp, timestamp) bool
    _<_ _<=_ _>_ _>=_(duration, duration) bool
    _&&_ _||_(bool, bool) bool
    !_ @not_strictly_false(bool) bool
    _?_:_(bool, A, A) A
    _+_ _-_ _*_ _/_ _%_(int, int) int
    _+_ _-_ _*_ _/_ _%_(uint, uint) uint
    _+_ _-_ _*_ _/_(double, double) double
    _+_(string, string) string
    _+_(bytes, bytes) bytes
    _+_(list(A), list(A)) list(A)
    _+_ _-_(duration, duration) duration
    _+_ _-_(timestamp, duration) timestamp
    _+_(duration, timestamp) timestamp
    _-_(timestamp, timestamp) duration
    -_(int) int
    -_(double) double
    @in(A, list(A)) bool
    @in(A, map(A, B)) bool
    _[_](list(A), int) A
    _[_](map(A, B), A) B
    _[_](optional(list(A)), int) optional(A)
    _[_](optional(map(A, B)), A) optional(B)
    _[?_](list(A), int) optional(A)
    _[?_](map(A, B), A) optional(B)
    _[?_](optional(list(A)), int) optional(A)
    _[?_](optional(map(A, B)), A) optional(B)
    size .size(string) int
    size .size(bytes) int
    size .size(list(A)) int
    size .size(map(A, B)) int
    type(A) type
    dyn(A) dyn
    bool(bool) bool
    bool(string) bool
    int(N) int
    int(string) int
    int(timestamp) int
    uint(N) uint
    uint(string) uint
    double(N) double
    double(string) double
    string(N) string
    string(bool) string
    string(string) string
    string(bytes) string
    string(timestamp) string
    string(duration) string
    bytes(bytes) bytes
    bytes(string) bytes
    timestamp(string) timestamp
    timestamp(int) timestamp
    timestamp(timestamp) timestamp
    duration(string) duration
    duration(int) duration
    duration(duration) duration
    .getFullYear .getMonth .getDayOfYear .getDayOfMonth .getDate .getDayOfWeek(timestamp) int
    .getFullYear .getMonth .getDayOfYear .getDayOfMonth .getDate .getDayOfWeek(timestamp, string) int
    .getHours .getMinutes .getSeconds .getMilliseconds(timestamp) int
    .getHours .getMinutes .getSeconds .getMilliseconds(timestamp, string) int
    .getHours .getMinutes .getSeconds .getMilliseconds(duration) int
    .contains .startsWith .endsWith(string, string) bool
    matches .matches(string, string) bool
    .charAt(string, int) string
    .indexOf .lastIndexOf(string, string) int
    .indexOf .lastIndexOf(string, string, int) int
    .join(list(string)) string
    .join(list(string), string) string
    .lowerAscii .upperAscii .trim .reverse(string) string
    .replace(string, string, string) string
    .replace(string, string, string, int) string
    .split(string, string) list(string)
    .split(string, string, int) list(string)
    .substring(string, int) string
    .substring(string, int, int) string
    .format(string, list(dyn)) string
    strings.quote(string) string
    optional.of(A) optional(A)
    optional.ofNonZeroValue(A) optional(A)
    optional.none() optional(A)
    .hasValue(optional(A)) bool
    .value(optional(A)) A
    .or(optional(A), optional(A)) optional(A)
    .orValue(optional(A), A) A
    .isSorted(list(A)) bool
    .sum .min .max(list(A)) A
    .indexOf .lastIndexOf(list(A), A) int
    .slice(list(A), int, int) list(A)
    .flatten(list(A)) list(dyn)
    .flatten(list(A), int) list(dyn)
    .distinct .reverse .sort(list(A)) list(A)
    .@sortByAssociatedKeys(list(A), list(B)) list(A)
    lists.range(int) list(int)
    sets.contains sets.equivalent sets.intersects(list(A), list(A)) bool
    .find(string, string) string
    .findAll(string, string) list(string)
    .findAll(string, string, int) list(string)
    isURL(string) bool
    url(string) kubernetes.URL
    .getScheme .getHost .getHostname .getPort .getEscapedPath(kubernetes.URL) string
    .getQuery(kubernetes.URL) map(string, list(string))
    isIP(string) bool
    ip(string) net.IP
    ip.isCanonical(string) bool
    string(net.IP) string
    .family(net.IP) int
    .isUnspecified .isLoopback .isLinkLocalMulticast .isLinkLocalUnicast .isGlobalUnicast(net.IP) bool
    isCIDR(string) bool
    cidr(string) net.CIDR
    string(net.CIDR) string
    .containsIP(net.CIDR, string) bool
    .containsIP(net.CIDR, net.IP) bool
    .containsCIDR(net.CIDR, string) bool
    .containsCIDR(net.CIDR, net.CIDR) bool
    .ip(net.CIDR) net.IP
    .masked(net.CIDR) net.CIDR
    .prefixLength(net.CIDR) int
    isQuantity(string) bool
    quantity(string) kubernetes.Quantity
    .sign .asInteger(kubernetes.Quantity) int
    .isInteger(kubernetes.Quantity) bool
    .asApproximateFloat(kubernetes.Quantity) double
    .isGreaterThan .isLessThan(kubernetes.Quantity, kubernetes.Quantity) bool
    .compareTo(kubernetes.Quantity, kubernetes.Quantity) int
    .add .sub(kubernetes.Quantity, kubernetes.Quantity) kubernetes.Quantity
    .add .sub(kubernetes.Quantity, int) kubernetes.Quantity
    format.named(string) optional(kubernetes.NamedFormat)
    format.dns1123Label format.dns1123Subdomain format.dns1035Label format.qualifiedName() kubernetes.NamedFormat
    format.dns1123LabelPrefix format.dns1123SubdomainPrefix format.dns1035LabelPrefix() kubernetes.NamedFormat
    format.labelValue format.uri format.uuid format.byte format.date format.datetime() kubernetes.NamedFormat
    .validate(kubernetes.NamedFormat, string) optional(list(string))
    isSemver(string) bool
    isSemver(string, bool) bool
    semver(string) kubernetes.Semver
    semver(string, bool) kubernetes.Semver
    .major .minor .patch(kubernetes.Semver) int
    .isGreaterThan .isLessThan(kubernetes.Semver, kubernetes.Semver) bool
    .compareTo(kubernetes.Semver, kubernetes.Semver) int
    jsonpatch.escapeKey(string) string
    cel.@mapInsert(map(A, B), A, B) map(A, B)
    cel.@mapInsert(map(A, B), map(A, B)) map(A, B)
    .path(kubernetes.authorization.Authorizer, string) kubernetes.authorization.PathCheck
    .group(kubernetes.authorization.Authorizer, string) kubernetes.authorization.GroupCheck
    .serviceAccount(kubernetes.authorization.Authorizer, string, string) kubernetes.authorization.Authorizer
    .resource(kubernetes.authorization.GroupCheck, string) kubernetes.authorization.ResourceCheck
    .subresource .namespace .name(kubernetes.authorization.ResourceCheck, string) kubernetes.authorization.ResourceCheck
    .fieldSelector .labelSelector(kubernetes.authorization.ResourceCheck, string) kubernetes.authorization.ResourceCheck
    .check(kubernetes.authorization.PathCheck, string) kubernetes.authorization.Decision
    .check(kubernetes.authorization.ResourceCheck, string) kubernetes.authorization.Decision
    .allowed .errored(kubernetes.authorization.Decision) bool
    .reason .error(kubernetes.authorization.Decision) string
";

/// Reads `(string, list(A)) bool`.
fn read(text: &'static str) -> (Vec<Type<'static>>, Type<'static>) {
    let mut depth = 0;
    let end = text.find(|character: char| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let (arguments, result) = text.split_at(end.map_or(text.len(), |end| end + 1));
    (split(&arguments[1..arguments.len() - 1]).into_iter().map(kind).collect(), kind(result.trim()))
}

/// Splits at the commas outside of brackets.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(Some(text[start..].trim()).filter(|last| !last.is_empty()));
    parts
}

fn kind(text: &'static str) -> Type<'static> {
    if let Some((outer, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let mut inner = split(inner).into_iter().map(kind);
        let first = inner.next().unwrap_or(Type::Dyn);
        return match outer {
            "list" => Type::list(first),
            "optional" => Type::optional(first),
            _ => Type::map(first, inner.next().unwrap_or(Type::Dyn)),
        };
    }
    match text {
        "A" | "B" | "N" => Type::Open(text.chars().next().unwrap_or('A')),
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Kind,
        library => Type::Library(library),
    }
}
