"""Small templates for make_template_cases.py: one thing each, rendered with VARIABLES."""

VARIABLES = {
    "name": "Ada",
    "greeting": "héllo wörld",
    "emoji": "a\U0001f600b",
    "empty": "",
    "blank": "  \t\n ",
    "padded": "\n  text \t",
    "lines": "one\n\n  two\nthree",
    "thought": "<think>\nhidden\n</think>\n\nshown",
    "num": 42,
    "neg": -7,
    "zero": 0,
    "pi": 3.14159,
    "big": 9223372036854775807,
    "huge": 18446744073709551615,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": [3, 1, 2],
    "words": ["pear", "Apple", "fig"],
    "mixed": [1, "a", None, True, 2.5, [1], {"k": "v"}],
    "nested": [[1, 2], [3, 4]],
    "record": {"b": 1, "a": [1, 2], "c": None},
    "people": [
        {"name": "Bo", "age": 30, "tags": ["x"]},
        {"name": "al", "age": 25, "tags": []},
        {"name": "Cy", "age": 30, "tags": ["y", "x"]},
    ],
    "schema": {"type": "object", "items": {"type": "string"}, "keys": 1, "properties": {}},
    "html": "<a href='x'>&\"</a>",
}

OUTPUT = r"""
{{ name }}
{{ nothing }}
{{ yes }} {{ no }}
{{ num }} {{ neg }} {{ pi }} {{ big }} {{ huge }}
{{ list }} {{ record }} {{ mixed }}
{{ missing }}
{{ missing }}|{{ record.missing }}|{{ record['missing'] }}|{{ list[10] }}
{{ (1,) }} {{ () }} {{ (1, 2) }} {{ 1, 2 }}
{{ [] }} {{ {} }} {{ [[], {}] }}
{{ 'it''s' }} {{ "a" 'b' }}
{{ ["it's", 'say "hi"', 'both \' and "', 'tab\t nl\n', 'é', '\x00\x7f\u200b', '\\'] }}
{{ 'a\tb\\n\'\"\x41\u00e9\U0001F600\101\q' }}
{{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5e300 }} {{ 123456789.123 }} {{ 0.1 + 0.2 }}
{{ 100 }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }}
{{ -0.0 }} {{ 2.50 }} {{ 5e-324 }} {{ 1e22 }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }}
{{ range(3) }} {{ range(1, 10, 3) }} {{ range(5, 0, -2)|list }}
{{ record.keys() }} {{ record.values() }} {{ record.items() }}
{{ emoji|length }} {{ emoji[1] }} {{ emoji[-1] }} {{ greeting[1:4] }} {{ greeting[::-1] }}
"""

OPERATORS = r"""
{{ 1 + 2 }} {{ 7 - 10 }} {{ 6 * 7 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }}
{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 // -2 }} {{ 7 % -3 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }}
{{ 2 ** -1 }} {{ 2 ** 0.5 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ (-8) ** 2 }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 1.0 / 0 }}
{{ 0 ** -1 }}
{{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1,) + (2,) }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ [1] + (2,) }}
{{ none + 1 }}
{{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [0] * 3 }} {{ 'x' * -1 }} {{ 2 * (1, 2) }}
{{ 'a' * 'b' }}
{{ 1 ~ 2 ~ none ~ true ~ 'x' ~ [1] ~ missing }}
{{ 1 ~ 2 + 3 }}
{{ 'a' ~ 1 * 2 }} {{ 1 ~ 2 * 3 }} {{ '1' + 2 ~ 3 }}
{{ yes + yes }} {{ -yes }} {{ +no }} {{ yes * 3 }} {{ yes / 2 }}
{{ not yes }} {{ not '' }} {{ not not 0 }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ 1 or missing.x }}
{{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' == 'a' }} {{ [1, 2] == [1, 2] }} {{ (1,) == [1] }} {{ none == none }} {{ missing == missing2 }}
{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ 1 != 2 }} {{ 'a' != 1 }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 }} {{ 1 == 1 != 2 }}
{{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1, 2] < [1, 3] }} {{ (1, 2) < (1, 2, 0) }} {{ 1 < 1.5 }}
{{ 'a' < 1 }}
{{ none < 1 }}
{{ [1] < (1,) }}
{{ missing < 1 }}
{{ 'el' in 'hello' }} {{ '' in 'a' }} {{ 3 in list }} {{ 4 not in list }} {{ 'a' in record }} {{ 1 in record }} {{ 2 in range(3) }} {{ none in [none] }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ 'a' in missing }}
{{ missing in 'abc' }}
{{ not 1 in [1] }} {{ not (1 in [2]) }} {{ 1 in [1] in [[1]] }}
{{ [1] in record }}
{{ 1 if yes else 2 }} {{ 1 if no else 2 }} [{{ 1 if no }}] {{ 'a' if no else 'b' if no else 'c' }}
{{ (1 if no) is undefined }} {{ ('x' if yes else missing.y) }}
{{ (1, 2)[0] }} {{ 'abc'[0] }} {{ list[-1] }} {{ list[true] }} {{ nested[1][0] }} {{ nested.1.0 }} {{ list.0 }}
{{ 'abc'.5 }}
{{ record.a.1 }} {{ record['a'][0] }} {{ {1: 'x'}[1] }} {{ {1: 'x'}[1.0] }} {{ {true: 'x'}[1] }} {{ {none: 1}[none] }} {{ {(1, 2): 3}[1, 2] }}
{{ {[1]: 2} }}
{{ list[1:] }} {{ list[:-1] }} {{ list[::2] }} {{ list[::-1] }} {{ list[-2:] }} {{ list[5:] }} {{ list[2:0:-1] }} {{ (1, 2, 3)[1:] }} {{ range(10)[2:8:3]|list }}
{{ 'hello'[1:3] }} {{ 'hello'[-3:] }} {{ 'hello'[::2] }} {{ 'hello'[3:1] }} {{ 'hello'[:100] }} {{ 'hello'[4:0:-2] }} {{ emoji[1:] }} {{ emoji[:2] }}
{{ list[::0] }}
{{ record[1:] }}
{{ missing[1:] }}
{{ nothing[1:] }}
{{ num[1:] }}
{{ list['a':] }}
{{ list[0:2:none] }} {{ list[none:none] }}
{{ 99999999999 * 99999999999 }} {{ 2 ** 100 }} {{ huge + 1 }} {{ big * big }}
{{ 7.0 // 2 }} {{ 1e3 }} {{ 1 - 1.0 }} {{ 10 % 3.5 }}
{{ -num }} {{ - 3 }} {{ +num }}
{{ +'a' }}
{{ -'a' }}
{{ 'a %s b %d c %5.2f|%-5s|%05d|%x|%r|%%' % ('x', 42, pi, 'l', -42, 255, 'q') }}
{{ '%s' % 'one' }} {{ '%s' % num }} {{ '%(a)s' % {'a': 1} }} {{ '%s and %s' % ('a', none) }} {{ '%3d|%-3d|%+d' % (1, 2, 3) }}
{{ '%s %s' % 'one' }}
{{ '%d' % 'x' }}
{{ 'no' % 1 }}
{{ 'no' % [1] }} {{ 'no' % missing }} {{ 'no' % {} }}
{{ 'no' % 'x' }}
{{ 'no' % none }}
{{ '%e %g %G %c %o %i' % (12345.678, 0.0001, 1e20, 65, 8, 2.9) }}
"""

STATEMENTS = r"""
{% if yes %}a{% endif %}{% if no %}b{% else %}c{% endif %}{% if no %}d{% elif yes %}e{% else %}f{% endif %}
{% if missing %}a{% else %}b{% endif %}{% if [] or '' or 0 or none or {} %}c{% endif %}{% if '0' and [0] %}d{% endif %}
{% for x in list %}{{ x }},{% endfor %}
{% for x in [] %}a{% else %}b{% endfor %}{% for x in missing %}a{% else %}c{% endfor %}
{% for k in record %}{{ k }}{% endfor %} {% for k, v in record.items() %}{{ k }}={{ v }};{% endfor %} {% for k, v in record|items %}{{ k }}{% endfor %}
{% for c in emoji %}[{{ c }}]{% endfor %}
{% for x in list if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}
{% for x in list if x > 9 %}a{% else %}none{% endfor %}
{% for x in words %}{{ loop.index }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.length }} {{ loop.previtem }} {{ loop.nextitem }} {{ loop.cycle('o', 'e') }} {{ loop.depth }} {{ loop.depth0 }};{% endfor %}
{% for x in [1, 1, 2, 2, 1] %}{{ x if loop.changed(x) else '-' }}{% endfor %}
{% for x in list %}{{ loop }}{% endfor %}
{% for a, b in nested %}{{ a }}-{{ b }} {% endfor %}{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [1] %}x{% endfor %}
{% for a, b in [(1, 2, 3)] %}x{% endfor %}
{% for x in 5 %}x{% endfor %}
{% for x in none %}x{% endfor %}
{% for x in list %}{% for y in list %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}
{% for x in list %}{% set outer = loop %}{% for y in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
{% for x in range(10) %}{% if x == 3 %}{% continue %}{% elif x == 6 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in range(3) %}{% for y in range(3) %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}
{% set x = 1 %}{% for i in list %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in list %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {{ ns.y }} {{ ns['x'] }} {{ ns.z is defined }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns }} {{ ns.a }}
{% set d = {} %}{% set d.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}{% set t = 1, %}{{ t }}
{% set a, b = [1] %}
{% set x %}hello {{ name }}{% endset %}[{{ x }}] {{ x is string }}
{% set x | upper | trim %}  hi {{ name }} {% endset %}[{{ x }}]
{% if yes %}{% set inside = 5 %}{% endif %}{{ inside }}
{% if no %}{% set never = 5 %}{% endif %}[{{ never }}]
{% for i in [1] %}{% set inner = 5 %}{% endfor %}[{{ inner }}]
{% for i in [1, 2] %}{% if loop.first %}{% set seen = i %}{% endif %}[{{ seen }}]{% endfor %}
{% set name = 'Bob' %}{{ name }}
{% for name in words %}{{ name }}{% endfor %}{{ name }}
{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=5) }} {{ m(b=1, a=0) }} [{{ m() }}]
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m() %}{{ varargs }} {{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}
{% macro m(a) %}{{ a }}{{ caller() }}{% endmacro %}{% call m(1) %}body {{ name }}{% endcall %}
{% macro m(items) %}{% for i in items %}{{ caller(i, loop.index) }}{% endfor %}{% endmacro %}{% call(item, n=0) m(words) %}<{{ n }}{{ item }}>{% endcall %}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% macro m() %}{{ caller }}{% endmacro %}[{{ m() }}]
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}
{% macro m() %}{{ name }}{% set name = 'in' %}{{ name }}{% endmacro %}{{ m() }}{{ name }}
{% macro m() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}
{% set v = 1 %}{% macro m() %}{{ v }}{% endmacro %}{% set v = 2 %}{{ m() }}
{% macro m(x) %}  {{ x }}  {% endmacro %}{{ m('a')|trim }}|{{ m('b')|length }}
{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}
{{ undefined_macro() }}
{% macro m() %}{% endmacro %}{{ m is callable }}
{% filter upper %}abc {{ name }}{% endfilter %} {% filter replace('a', 'b')|trim %} aaa {% endfilter %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}[{{ a }}]
{% with %}{% set q = 1 %}{{ q }}{% endwith %}[{{ q }}]
{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}
{% generation %}gen {{ name }}{% set g = 1 %}{% endgeneration %}[{{ g }}]
{% raw %}{{ not }} {% evaluated %}{% endraw %}
{%- raw -%}  {{ x }}  {%- endraw -%}
{# comment #}a{# multi
line #}b{#- trimmed -#} c
{% set x = namespace %}{{ x(a=1).a }}
{% print 'x' %}{% print 1, 2 %}
{{ raise_exception('custom message') }}
{% if yes %}{{ raise_exception('a' ~ 1) }}{% endif %}
{% if no %}{{ raise_exception('not reached') }}{% endif %}ok
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y %H:%M:%S %A %B %j %p %I %%') }}[{{ strftime_now('') }}]
{{ range(100001)|length }}
{{ range(100000)|length }}
{{ range(1, 5, 0) }}
{{ range('a') }}
{{ dict(a=1, b=2) }}
{{ {}.__class__ }}|{{ ''.__class__ }}
{{ ''.__class__.__mro__ }}
{{ name.upper.__self__ }}
{{ list.append(1) }}
{% set _ = record.update({'x': 1}) %}
{{ list.append is defined }}
{{ record.pop }}
{{ list.__len__() }}
{% if no %}{{ 1|nofilter }}{% endif %}ok
{{ (1|nofilter) if no else 'ok' }}
{% if no is notest %}{% endif %}
{% for x in [1] %}{% set loop_length = loop.length %}{{ loop_length }}{% endfor %}
{% for a in [1, 2] %}{{ a }}{% if not loop.last %}, {% endif %}{% endfor %}
{% set x = [1, 2] %}{% set x = x + [3] %}{{ x }}
{% set ns = namespace(items=[]) %}{% for i in list %}{% set ns.items = ns.items + [i * 2] %}{% endfor %}{{ ns.items|join(',') }}
{% for i in range(3) -%} {{ i }} {%- endfor %}
{% for x in words|sort %}{{ x }}{% if loop.nextitem is defined %}>{% endif %}{% endfor %}
{% set g = words|map('upper') %}{{ g|join(',') }}|{{ g|join(',') }}
{% set g = words|map('upper') %}{{ g|first }}{{ g|list }}
{% for x in words|map('length') %}{{ loop.last }}{{ x }}{% endfor %}
{% for k in {'a': 1}.items() %}{{ k[0] }}{{ k.1 }}{% endfor %}
"""

FILTERS = r"""
{{ 'Hello'|upper }} {{ 'Hello'|lower }} {{ 'hELLO wORLD'|capitalize }} {{ 'hello wor-ld (x y'|title }} {{ "it's o'neil"|title }}
{{ padded|trim }}| {{ 'xxaxx'|trim('x') }} {{ num|trim }} {{ none|upper }}
{{ 'a b  c'|length }} {{ list|length }} {{ record|count }} {{ missing|length }}
{{ 5|length }}
{{ list|join }} {{ list|join(', ') }} {{ words|join('|') }} {{ people|join(',', attribute='name') }} {{ 'abc'|join('-') }} {{ [1, none, 'a']|join('/') }} {{ record|join }}
{{ missing|default('d') }} {{ ''|default('d') }}| {{ ''|default('d', true) }} {{ none|default('d') }} {{ none|d('d', boolean=true) }} {{ missing|d }}|
{{ list|first }} {{ list|last }} {{ 'abc'|first }} {{ 'abc'|last }} [{{ []|first }}] {{ record|first }} {{ record|last }}
{{ list|sort }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ list|sort(reverse=true) }} {{ people|sort(attribute='age')|map(attribute='name')|list }} {{ people|sort(attribute='age,name')|map(attribute='name')|list }} {{ people|sort(true, attribute='age')|map(attribute='name')|list }}
{{ mixed|sort }}
{{ [1, 1, 2, 'a', 'A']|unique|list }} {{ ['a', 'A']|unique(true)|list }} {{ people|unique(attribute='age')|map(attribute='name')|join }}
{{ nested|unique|list }}
{{ list|reverse|list }} {{ 'abc'|reverse }} {{ record|reverse|list }}
{{ list|min }} {{ list|max }} {{ words|min }} {{ words|max }} {{ people|max(attribute='age') }} [{{ []|min }}]
{{ list|sum }} {{ people|sum(attribute='age') }} {{ list|sum(start=10) }} {{ []|sum }} {{ nested|sum(start=[]) }}
{{ words|sum }}
{{ words|map('upper')|list }} {{ people|map(attribute='name')|join(' ') }} {{ people|map(attribute='tags.0')|list }} {{ people|map(attribute='x', default='-')|list }} {{ ['1', '2']|map('int')|sum }} {{ words|map('replace', 'p', 'P')|list }}
{{ words|map|list }}
{{ words|map('nofilter')|list }}
{{ range(5)|select('odd')|list }} {{ [0, 1, '', 'a']|select|list }} {{ range(5)|reject('odd')|list }} {{ [0, 1]|reject|list }} {{ range(6)|select('divisibleby', 3)|list }} {{ words|select('in', ['fig'])|list }}
{{ people|selectattr('tags')|map(attribute='name')|list }} {{ people|selectattr('age', 'equalto', 30)|list|length }} {{ people|rejectattr('age', 'gt', 26)|map(attribute='name')|list }} {{ people|selectattr('zip', 'defined')|list }} {{ people|selectattr('name', '==', 'Bo')|first }}
{{ people|selectattr|list }}
{{ 'aaa'|replace('a', 'b') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'abc'|replace('', '-') }} {{ 121|replace(1, 3) }}
{{ 3.7|int }} {{ '42'|int }} {{ '3.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '0x1f'|int(base=16) }} {{ 'ff'|int(0, 16) }} {{ ' 12 '|int }} {{ '1_000'|int }} {{ none|int(5) }} {{ -3.7|int }} {{ true|int }} {{ '-5'|int }} {{ [1]|int }}
{{ '3.5'|float }} {{ 3|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ '1e3'|float }} {{ 'inf'|float }} {{ '-nan'|float }} {{ '.5'|float }} {{ '5.'|float }} {{ '+2'|float }} {{ '1_0.5'|float }}
{{ missing|int }}
{{ 42|string }} {{ none|string ~ true|string }} {{ [1, 'a']|string|length }}
{{ -5|abs }} {{ 2.5|abs }} {{ -2.5|abs }} {{ true|abs }}
{{ 'a'|abs }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ 2.9|round(method='floor') }} {{ 42|round }} {{ 1234.5678|round(-2) }} {{ 1250|round(-2) }} {{ 1350|round(-2) }} {{ 1.005|round(2) }} {{ -2.5|round }} {{ 0.5|round }} {{ 2.345|round(1, 'floor') }}
{{ 'x'|round }}
{{ record|items|list }} {{ missing|items|list }} {{ record|dictsort }} {{ record|dictsort(reverse=true) }} {{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'A': 2}|dictsort(true) }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }}
{{ [1]|items|list }}
{{ record|dictsort(by='x') }}
{{ lines|indent }}|{{ lines|indent(2, true) }}|{{ lines|indent(2, blank=true) }}|{{ lines|indent('> ') }}|{{ 'a'|indent }}|{{ ''|indent }}
{{ html|safe }} {{ html|escape }} {{ html|e }} {{ (html|e)|e }} {{ html|forceescape }} {{ ('<b>'|safe) + '<i>' }} {{ '<i>' + ('<b>'|safe) }} {{ ('<b>'|safe) ~ '<i>' }} {{ ['<b>'|safe] }} {{ ('<b>'|safe).upper() + '<' }} {{ ('<b>'|safe).replace('b', '<') }} {{ ('a,<'|safe).split(',') }}
{{ record|tojson }} {{ mixed|tojson }} {{ 'é"\\\n\t\x01/<>&'|tojson }} {{ none|tojson }} {{ (1, 2)|tojson }} {{ 1.0|tojson }} {{ 1e100|tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }} {{ emoji|tojson(ensure_ascii=true) }} {{ '\x7f'|tojson(true) }} {{ huge|tojson }}
{{ record|tojson(indent=2) }}
{{ {'b': [], 'a': {}, 'c': [[1]]}|tojson(indent=4, sort_keys=true) }}
{{ record|tojson(separators=(',', ':')) }} {{ record|tojson(indent=1, separators=(', ', '=')) }} {{ [1, {'a': 2}]|tojson(indent='--') }} {{ [1]|tojson(indent=0) }}
{{ missing|tojson }}
{{ range(3)|tojson }}
{{ {(1, 2): 3}|tojson }}
{{ record.items()|tojson }}
{{ {'a': 1, 2: 3}|tojson(sort_keys=true) }}
{{ [missing]|tojson }}
{{ 'inf'|float|tojson }}
{{ '%s-%d'|format('a', 3) }} {{ '%(x)s'|format(x=1) }}
{{ 'hello world foo'|truncate(11) }} {{ 'hello world foo bar baz'|truncate(11) }} {{ 'hello world foo bar'|truncate(9, true) }} {{ 'hello world foo bar'|truncate(9, true, '', 0) }} {{ 'abc'|truncate(5) }} {{ list|truncate(5) }}
{{ 5|truncate }}
{{ 'x'|center(5) }}| {{ 'ab'|center(5) }}|
{{ 'a b-c_d, é!'|wordcount }}
{{ range(7)|batch(3)|list }} {{ range(7)|batch(3, 'x')|list }} {{ range(7)|slice(3)|list }} {{ range(7)|slice(3, 'x')|list }}
{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|map(attribute='name')|join('+') }};{% endfor %}{% for a, items in people|groupby('age') %}{{ a }}{{ items|length }}{% endfor %} {{ ['a', 'A', 'b']|groupby('0') }}
{{ list|list }} {{ 'ab'|list }} {{ record|list }}
{{ 5|list }}
{{ name|attr('upper') is callable }} [{{ record|attr('a') }}]
{{ missing|attr('x') }}
{{ 'abc'|upper|lower|title|reverse }} {{ name|lower|first|upper }} {{ -1|abs }} {{ (-1)|abs + 2 }}
{{ 1|nofilter }}
{{ 'a'|upper(1) }}
{{ 'a'|replace('b') }}
{{ words|last|length }} {{ words[0]|length > 3 and words|length == 3 }}
{{ not words|length }} {{ words|length * 2 }} {{ 'a' ~ words|length }}
{{ 'straße'|upper }} {{ 'ﬁne'|upper }} {{ 'ÀÉ'|lower }} {{ 'ΑΣ ΣΑ'|lower }} {{ 'éa'|capitalize }} {{ 'ǆ'|title }} {{ 'İ'|lower|length }}
"""

TESTS = r"""
{{ name is defined }} {{ missing is defined }} {{ missing is undefined }} {{ record.x is defined }} {{ record.b is defined }} {{ name is not defined }}
{{ none is none }} {{ 0 is none }} {{ nothing is not none }} {{ missing is none }}
{{ 'a' is string }} {{ 1 is string }} {{ html|e is string }}
{{ 1 is number }} {{ 1.5 is number }} {{ true is number }} {{ '1' is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ true is boolean }} {{ 1 is boolean }}
{{ {} is mapping }} {{ [] is mapping }} {{ [] is sequence }} {{ '' is sequence }} {{ {} is sequence }} {{ 1 is sequence }} {{ range(2) is sequence }} {{ missing is sequence }} {{ record.items() is sequence }} {{ (1,) is sequence }}
{{ [] is iterable }} {{ '' is iterable }} {{ {} is iterable }} {{ 1 is iterable }} {{ none is iterable }} {{ missing is iterable }} {{ record.keys() is iterable }}
{{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }}
{{ 3 is odd }} {{ 3 is even }} {{ -3 is odd }} {{ 0 is even }} {{ 2.0 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }}
{{ 'a' is odd }}
{{ 'a' is in ['a'] }} {{ 1 is not in [2] }} {{ 'a' is in 'abc' }}
{{ 1 is eq 1 }} {{ 1 is equalto 2 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is le 1 }} {{ 2 is gt 1 }} {{ 2 is ge(3) }} {{ 1 is sameas 1 }} {{ true is sameas true }} {{ 1 is sameas true }} {{ list is sameas list }} {{ [] is sameas [] }}
{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'Abc' is lower }} {{ '123' is upper }} {{ 'é' is lower }}
{{ range is callable }} {{ 1 is callable }} {{ name.upper is callable }}
{{ 'upper' is filter }} {{ 'nofilter' is filter }} {{ 'odd' is test }} {{ html|safe is escaped }} {{ html is escaped }}
{{ 1 is notest }}
{{ 1 is odd is true }}
{{ missing.x is defined }}
{{ record.x.y is defined }}
{{ not missing is defined }} {{ missing is defined and missing.x }} {{ name is string and name|length > 2 }} {{ (name is string) ~ 'x' }}
{{ 'x' if name is defined else 'y' }} {{ [1, 2,] }} {{ {'a': 1,} }} {{ 'x' if missing is not defined or no else 'y' }}
{{ schema.items is mapping }} {{ schema['items'] is mapping }} {{ schema.type }} {{ schema.keys is defined }} {{ schema['keys'] }}
{{ name is string == true }}
"""

METHODS = r"""
{{ ' a '.strip() }}| {{ 'xxaxx'.strip('x') }} {{ ' a '.lstrip() }}| {{ ' a '.rstrip() }}| {{ 'abcab'.strip('ab') }} {{ 'éaé'.strip('é') }} {{ '\u3000a\xa0'.strip() }}|
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c d'.split(' ', 2) }} {{ ' a  b  '.split(none, 1) }} {{ 'a  b c'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ 'abc'.split('abc') }} {{ 'a b'.split(maxsplit=0) }} {{ 'a\u2003b'.split() }}
{{ 'a'.split('') }}
{{ thought.split('</think>')[-1].lstrip('\n') }}|{{ thought.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.startswith('') }} {{ 'abc'.endswith('b', 0, 2) }} {{ 'éa'.startswith('a', 1) }}
{{ 'abc'.startswith(1) }}
{{ 'Abc'.upper() }} {{ 'ABC'.lower() }} {{ "they're bill's".title() }} {{ 'aBC dE'.capitalize() }} {{ 'aBc'.swapcase() }} {{ 'ẞß'.casefold() }}
{{ 'aXbX'.replace('X', '-') }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.replace('', '.') }} {{ 'éé'.replace('é', 'e') }}
{{ ','.join(['a', 'b']) }} {{ ''.join(words) }} {{ '-'.join('abc') }} {{ '.'.join(record) }}
{{ ','.join([1]) }}
{{ 'hello'.find('l') }} {{ 'hello'.find('z') }} {{ 'hello'.rfind('l') }} {{ 'hello'.find('l', 3) }} {{ 'héllo'.find('l') }} {{ 'hello'.index('e') }} {{ 'hello'.count('l') }} {{ 'aaaa'.count('aa') }} {{ 'abc'.count('') }} {{ 'hello'.find('l', -2) }} {{ 'hello'.rfind('h', 1) }} {{ 'abc'.find('', 5) }}
{{ 'hello'.index('z') }}
{{ 'abc'.isalpha() }} {{ 'ab1'.isalnum() }} {{ '12'.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ ' '.isspace() }} {{ ''.isspace() }} {{ 'AB1'.isupper() }} {{ 'ab'.islower() }} {{ ''.isalpha() }} {{ 'é'.isascii() }} {{ 'éa'.isalpha() }}
{{ 'ab'.center(6, '*') }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3, '.') }} {{ '-5'.zfill(4) }} {{ '5'.zfill(3) }} {{ 'abc'.center(6) }}| {{ 'ab'.center(5) }}|
{{ 'a.b.c'.partition('.') }} {{ 'a.b.c'.rpartition('.') }} {{ 'abc'.partition('x') }} {{ 'abc'.rpartition('x') }}
{{ 'prefix_x'.removeprefix('prefix_') }} {{ 'x.py'.removesuffix('.py') }} {{ 'abc'.removeprefix('x') }}
{{ 'a\nb\r\nc\x0bd'.splitlines() }} {{ 'a\n'.splitlines(true) }} {{ ''.splitlines() }} {{ 'a\n\nb'.splitlines() }}
{{ '{} {}'.format('a', 1) }} {{ '{1}{0}'.format('a', 'b') }} {{ '{x}'.format(x=5) }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }} {{ '{:.2f} {:05d} {:,} {:x} {:+d} {:%} {:e}'.format(pi, 42, 1234567, 255, 3, 0.25, 12345.678) }} {{ '{0[a]} {0.b}'.format({'a': 1, 'b': 2}) }} {{ '{!r}'.format('q') }} {{ '{{}}'.format() }} {{ '{:5}|{:5}'.format(1, 'a') }} {{ '{}'.format(1.5) }} {{ '{:.3}'.format('abcdef') }} {{ '{:b} {:o} {:#x}'.format(5, 8, 255) }}
{{ '{}'.format() }}
{{ '{'.format() }}
{{ record.get('b') }} {{ record.get('x') }} {{ record.get('x', 5) }} {{ record.keys()|list }} {{ record.values()|list }} {{ record.items()|list }} {{ record.copy() == record }}
{{ record.get() }}
{{ list.index(1) }} {{ list.count(3) }} {{ (1, 2, 1).count(1) }} {{ 'x' in record.keys() }} {{ list.copy() }}
{{ list.index(99) }}
{{ name.nomethod }}|{{ list.nomethod is defined }}
{{ name.nomethod() }}
{{ num.x }}|{{ none.x }}
{{ none.x.y }}
{{ name() }}
{{ record.b() }}
{{ name.strip(1) }}
{{ 'a'.upper(1) }}
{{ 'a'.join() }}
{{ name['upper']() }} {{ record['get']('b') }}
{{ list.sort }}
{{ 'x'.join(['a', 'b'])|upper }} {{ ('a' + 'b').upper() }} {{ 'a' + 'b'.upper() }} {{ [1, 2].count(1) }}
{{ greeting.upper().split(' ')[0][1:].lower() }}
{% set f = name.upper %}{{ f() }}
{{ [*list] }}
{{ range(*[1, 4])|list }} {{ dict(**{'a': 1}) }} {% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(1, *[2]) }}
"""

# Templates with line breaks and white space that matters, and syntax errors.
LONG = [
    "a\n",
    "a\n\n",
    "{% if yes %}\nx\n{% endif %}\ny\n",
    "  {% if yes %}  \n  x\n  {% endif %}  \ny",
    "a  {%- if yes -%}  b  {%- endif -%}  c",
    "a  {%+ if yes %}b{% endif %}\n  {%+ if yes %}c{% endif %}",
    "{% if yes +%}\nx\n{% endif +%}\ny",
    "x\n  {{ name }}\n  {{- name -}}\n  y",
    "x \n\n {#- c -#} \n y {# c #}\nz\n  {# c #}\n  w",
    "\n\n{% for x in list %}\n  {{ x }}\n{% endfor %}\n\nend",
    "\r\na\rb\r\n{% if yes %}\r\nc{% endif %}",
    "\u00a0{%- if yes %}x{% endif -%}\u3000 y",
    "{% raw %}\n{% if x %}\n  {% endraw %}\nz",
    "a\n   {% raw %}b{% endraw %}  \nc",
    "\t{% set x = 1 %}\t\n\t{{ x }}",
    "{{ 'a\nb' }}\n{% set x = 'c\\\nd' %}{{ x }}",
    "{{\n  name\n  ~\n  '!'\n}}",
    "{% if yes %}{% if no %}a{% else %}\n  b\n{% endif %}\n{% endif %}",
    "{%if yes%}a{%endif%}{{name}}{{-name}}",
    "{ { % # } } {a} %} }} #}",
    "{{ '{{' }} {{ '}}' }} {{ \"%}\" }}",
    "{{ {'a': {'b': 1}} }}{{ {'a': 1}.a }}",
    "{% for m in people %}\n{{ m.name }}\n{%- if m.tags %}\n: {{ m.tags|join(' ') }}\n{% endif %}\n{% endfor %}",
    "{% macro m(x) %}\n<{{ x }}>\n{% endmacro %}\n{{ m(1) }}\n{{- m(2) }}",
    "{% set x %}\n  a\n{% endset %}\n[{{ x }}]",
    "{% if yes: %}a{% endif %}",
    "{% for x in list: %}{{ x }}{% endfor %}",
    "{{ name",
    "{% if yes %}a",
    "{% endif %}",
    "{% if %}a{% endif %}",
    "{{ }}",
    "{{ 1 + }}",
    "{{ (1 }}",
    "{{ 1) }}",
    "{{ [1, }}",
    "{{ 'abc }}",
    "{# open",
    "{% raw %} open",
    "{% nosuchtag %}",
    "{% for x list %}{% endfor %}",
    "{% for x in list %}{% endif %}",
    "{% set x %}",
    "{% set 1 = 2 %}",
    "{% set true = 2 %}",
    "{% macro 1() %}{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% break %}",
    "{% call name %}{% endcall %}",
    "{{ a b }}",
    "{{ 1 is }}",
    "{{ name| }}",
    "{{ name. }}",
    "{{ f(a=1, 2) }}",
    "{{ f(*a, *b) }}",
    "{{ $ }}",
    "{{ a ? b }}",
    "{{ 'a' 1 }}",
    "{% if yes %}a{% else %}b{% else %}c{% endif %}",
    "{% elif %}",
    "{{ {'a' 1} }}",
    "{{ {1, 2} }}",
    "{{ 1 if }}",
    "{{ not }}",
    "{{ '\\x4' }}",
    "{{ 1 == }}",
    "{{ a =  1 }}",
    "{% set x = %}",
    "{% with a %}{% endwith %}",
    "{% for loop in list %}{% endfor %}",
    "{% filter nofilter %}{% endfilter %}",
    "{{ 007 }}",
    "{{ 1.e5 }}",
]


def snippets():
    for block in (OUTPUT, OPERATORS, STATEMENTS, FILTERS, TESTS, METHODS):
        yield from block.strip("\n").split("\n")
    yield from LONG
