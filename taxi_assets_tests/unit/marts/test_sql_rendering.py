"""Portable SQL: how each engine's SQL is rendered, what is rejected, and the types and lineage of columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import sqlglot
from sqlglot import exp

from taxi_assets.errors import MartDefinitionError
from taxi_assets.marts import all_trips
from taxi_assets.marts.mart import marts, read_mart
from taxi_assets.marts.portable_sql import ALLOWED_NODES
from taxi_assets.marts.sql_rendering import (
    column_lineage,
    column_types,
    expand_all_trips,
    is_never_null,
    mart_queries,
    month_query,
    parse,
    render,
    tables_of,
)
from taxi_assets.tlc.month import Month
from taxi_assets.tlc.services.fhv import FHV
from taxi_assets.tlc.services.fhvhv import FHVHV
from taxi_assets.tlc.services.green import GREEN
from taxi_assets.tlc.services.registry import SERVICES
from taxi_assets.tlc.services.yellow import YELLOW

if TYPE_CHECKING:
    from taxi_assets.marts.mart import Mart

MONTH = Month(2021, 1)
DIALECTS = ["duckdb", "postgres", "bigquery"]
# How engines name the types of the language; a sum needs no other.
TYPES = {
    *(exp.DType.DATE, exp.DType.BIGINT, exp.DType.DOUBLE, exp.DType.DECIMAL, exp.DType.TEXT),
    *(exp.DType.TIMESTAMP, exp.DType.DATETIME),
}


def relation(dialect: str) -> str:
    return "`a-project.taxi.{}`" if dialect == "bigquery" else '"taxi"."{}"'


def rendered(mart: Mart, dialect: str) -> dict[str, str]:
    """The query of a month of all services, and of one alone, and the views."""
    found = {
        ", ".join(service.name for service in services): month_query(mart, MONTH, services)
        for services in (mart.services, mart.services[-1:])
    }
    return {
        name: render(query, dialect, relation(dialect).format)
        for name, query in (found | mart_queries(mart)[1]).items()
    }


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", marts())
def test_every_mart_is_portable_sql(name: str, dialect: str) -> None:
    for which, statement in rendered(marts()[name], dialect).items():
        tree = sqlglot.parse_one(statement, read=dialect, error_level=sqlglot.ErrorLevel.RAISE)
        for cast in tree.find_all(exp.Cast):
            assert cast.to.this in TYPES, (which, cast.sql())
            assert isinstance(cast.this, exp.Null) or not cast.to.expressions, (which, cast.sql())
            cast.to.set("expressions", [])  # DuckDB's DECIMAL has a width even for a null
        strange = {type(node).__name__ for node in tree.walk() if type(node) not in ALLOWED_NODES}
        assert not strange, (which, strange)
        for division in tree.find_all(exp.Div):
            assert division.this.find(exp.Cast), (which, division.sql())
            assert division.expression.is_int or isinstance(division.expression, exp.Nullif), (which, division.sql())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", marts())
def test_every_query_reads_only_tables_of_the_warehouse(name: str, dialect: str) -> None:
    mart = marts()[name]
    known = {service.table for service in mart.services} | {"taxi_zones", *marts()}
    for statement in rendered(mart, dialect).values():
        for table in sqlglot.parse_one(statement, read=dialect).find_all(exp.Table):
            assert table.name in known
            assert table.db == "taxi"
            assert table.catalog == ("a-project" if dialect == "bigquery" else "")
            assert table.alias


def test_a_month_reads_its_own_partition_of_each_table() -> None:
    for dialect in DIALECTS:
        statement = rendered(marts()["zone_day"], dialect)["yellow, green, fhv, fhvhv"]
        found = re.findall(r"WHERE\s+[\"`]data_month[\"`] IN \(CAST\('2021-01-01' AS DATE\)\)", statement)
        assert len(found) == 4


def test_names_that_an_engine_reserves_are_quoted() -> None:
    query = parse("SELECT service AS hash, COUNT(*) AS rows FROM taxi_zones GROUP BY service", "query")
    assert "AS `hash`" in render(query, "bigquery", str)
    assert 'AS "rows"' in render(query, "postgres", str)


# --- what is refused --------------------------------------------------------------------------------------------------

FROM = "FROM zone_day"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"SELECT MEDIAN(trips) AS m {FROM}", "Median"),
        (f"SELECT AVG(fare) AS m {FROM}", "Avg"),
        (f"SELECT QUANTILE_CONT(trips, 0.5) AS m {FROM}", "not portable"),
        (f"SELECT DAYOFWEEK(pickup_date) AS d {FROM}", "DayOfWeek"),
        (f"SELECT STRFTIME(pickup_date, '%a') AS d {FROM}", "TimeToStr"),
        (f"SELECT EXTRACT(DOW FROM pickup_date) AS d {FROM}", "DOW"),
        (f"SELECT DATE_DIFF('day', data_month, pickup_date) AS d {FROM}", "DateDiff"),
        (f"SELECT pickup_date - data_month AS d {FROM}", "calculates with dates"),
        (f"SELECT MAX(pickup_date) - MIN(pickup_date) AS d {FROM}", "calculates with dates"),
        (f"SELECT pickup_date + 1 AS d {FROM}", "calculates with dates"),
        (f"SELECT pickup_date + INTERVAL 1 DAY AS d {FROM}", "Interval"),
        (f"SELECT CAST(fare AS DECIMAL(10,2)) AS f {FROM}", "different result"),
        (f"SELECT fare::DECIMAL AS f {FROM}", "different result"),
        (f"SELECT CAST(fare AS BIGINT) AS f {FROM}", "different result"),
        (f"SELECT CAST(fare AS VARCHAR) AS f {FROM}", "different result"),
        (f"SELECT TRY_CAST(service AS DATE) AS f {FROM}", "TryCast"),
        (f"SELECT ROUND(fare, 2) AS f {FROM}", "Round"),
        (f"SELECT trips / 2 AS f {FROM}", "must divide a DOUBLE"),
        (f"SELECT fare / NULLIF(trips, 0) AS f {FROM}", "must divide a DOUBLE"),
        (f"SELECT CAST(fare AS DOUBLE) / trips AS f {FROM}", "NULLIF"),
        (f"SELECT CAST(fare AS DOUBLE) / 0 AS f {FROM}", "NULLIF"),
        (f"SELECT trips // 2 AS f {FROM}", "IntDiv"),
        (f"SELECT trips % 2 AS f {FROM}", "Mod"),
        (f"SELECT fare * 1.1 AS f {FROM}", "to DOUBLE"),
        (f"SELECT service || '!' AS s {FROM}", "DPipe"),
        (f"SELECT service {FROM} WHERE service LIKE 'f%'", "Like"),
        (f"SELECT service {FROM} WHERE service ~ 'f'", "RegexpLike"),
        (f"SELECT Service {FROM}", "lower case"),
        ("SELECT COUNT(*) AS n FROM (zone_day AS a JOIN taxi_zones AS b ON a.zone = b.zone)", "within parentheses"),
        (f'SELECT service AS "a b" {FROM}', "lower case"),
        (f"SELECT service AS größe {FROM}", "lower case"),
        (f"SELECT * EXCLUDE (trips) {FROM}", "leave out"),
        (f"SELECT DISTINCT ON (service) service {FROM}", "not portable"),
        (f"SELECT COUNT(DISTINCT service, trips) AS n {FROM}", "one column"),
        (f"SELECT COUNT(*) FILTER (WHERE trips > 1) AS n {FROM}", "Filter"),
        (f"SELECT service, COUNT(*) AS n {FROM} GROUP BY ALL", "all"),
        (f"SELECT service, COUNT(*) AS n {FROM} GROUP BY ROLLUP (service)", "Rollup"),
        (f"SELECT service, trips {FROM} GROUP BY service", "does not group by"),
        (f"SELECT COALESCE(service, 'x') AS service, COUNT(*) AS n {FROM} GROUP BY service", "the column or the alias"),
        (
            f"SELECT CASE COALESCE(trips, 0) WHEN 0 THEN 1 END AS c {FROM} GROUP BY COALESCE(trips, 0)",
            "group by exactly",
        ),
        (f"SELECT service {FROM} QUALIFY ROW_NUMBER() OVER (PARTITION BY service) = 1", "not portable"),
        (f"SELECT service {FROM} USING SAMPLE 10%", "not portable"),
        (f"SELECT service {FROM} LIMIT 3 OFFSET 2", "Offset"),
        (f"SELECT service {FROM} ORDER BY ALL", "ALL"),
        ("SELECT a.service FROM zone_day AS a NATURAL JOIN od_flows AS b", "method"),
        ("SELECT a.service FROM zone_day AS a SEMI JOIN od_flows AS b ON a.service = b.service", "SEMI"),
        ("SELECT a.service FROM zone_day AS a ASOF JOIN od_flows AS b ON a.trips >= b.trips", "method"),
        ("SELECT service FROM zone_day UNION BY NAME SELECT service FROM od_flows", "by_name"),
        ("SELECT service FROM zone_day EXCEPT SELECT service FROM od_flows", "Except"),
        ("WITH RECURSIVE a AS (SELECT 1 AS n FROM zone_day) SELECT n FROM a", "recursive"),
        ("SELECT x FROM zone_day AS t(x)", "name columns"),
        ("SELECT * FROM 'trips.parquet'", "lower case"),
        ("SELECT * FROM READ_PARQUET('trips.parquet')", "not a table"),
        ("SELECT * FROM RANGE(10)", "not a table"),
        ("SELECT * FROM (VALUES (1), (2)) AS t", "Values"),
        ("SELECT UNNEST([1, 2]) AS n", "not portable"),
        ("SELECT * FROM information_schema.tables", "the name of a table, without"),
        ("SELECT CURRENT_DATE AS today FROM zone_day", "CurrentDate"),
        ("SELECT RANDOM() AS r FROM zone_day", "Rand"),
        ("DROP TABLE zone_day", "not exactly one query"),
        ("SELECT 1 AS n FROM zone_day; SELECT 2 AS n FROM zone_day", "not exactly one query"),
        ("SELECT FROM WHERE", "cannot be parsed"),
        ("SELECT 'open FROM zone_day", "cannot be parsed"),
        ("SELEC data_month", "cannot be parsed: 'SELEC AS data_month' is not a statement"),
        ("SELEC data_month, service FROM zone_day", "cannot be parsed"),
        ("", "there is no query"),
    ],
)
def test_sql_that_is_not_portable_is_rejected(query: str, message: str) -> None:
    with pytest.raises(MartDefinitionError) as error:
        parse(query, "question 3")
    assert error.value.problem.startswith("question 3: ")
    assert message.lower() in error.value.problem.lower()
    assert error.value.problem.replace("…", "").isprintable()
    assert "marts/portable_sql.py" in error.value.remedy


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT service, COUNT(DISTINCT pickup_date) AS days, -SUM(fare) AS f {FROM} GROUP BY service",
        f"SELECT COALESCE(service, 'x') AS s, SUM(trips) AS n {FROM} GROUP BY COALESCE(service, 'x') LIMIT 3",
        f"SELECT COALESCE(service, 'x') AS s, SUM(trips) AS n {FROM} GROUP BY s HAVING COUNT(*) > 1 ORDER BY n",
        f"SELECT COALESCE(service, 'x') AS s, SUM(trips) AS n {FROM} GROUP BY 1",
        f"SELECT EXTRACT(YEAR FROM pickup_date) AS y, CAST(miles AS DOUBLE) * 0.5 / 60 / NULLIF(trips, 0) AS r {FROM}",
        f"SELECT service {FROM} WHERE pickup_date BETWEEN CAST('2021-01-01' AS DATE) AND data_month OR fare > 1.5",
        "SELECT a.service FROM zone_day AS a LEFT JOIN od_flows AS b ON a.service = b.service CROSS JOIN taxi_zones",
        "WITH a AS (SELECT service FROM zone_day) SELECT service FROM a UNION ALL SELECT service FROM od_flows",
    ],
)
def test_portable_sql_is_rendered_for_every_engine(query: str) -> None:
    for dialect in DIALECTS:
        statement = render(parse(query, "query"), dialect, relation(dialect).format)
        assert isinstance(sqlglot.parse_one(statement, read=dialect), exp.Query)


HEADER = "/*\ndescription: Some.\nkey: [data_month, service]\nmeasures: [trips]\n*/\n"
QUERY = "SELECT data_month, service, SUM(trips) AS trips FROM all_trips GROUP BY data_month, service"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + QUERY.replace("SUM(trips) AS trips", "SUM(trips) AS n"), "must select, in this order: data_month"),
        (HEADER + QUERY.replace("data_month, service, SUM", "service, data_month, SUM"), "in this order"),
        (HEADER + QUERY.replace("all_trips", "zone_day"), "must read all_trips"),
        (HEADER.replace("[data_month, service]", "[service, data_month]") + QUERY, "in this order"),
        (HEADER + "DROP TABLE zone_day", "must select"),
        (HEADER + QUERY + "; DROP TABLE zone_day", "only CREATE VIEW"),
        (HEADER + QUERY + "; CREATE TABLE a AS SELECT 1 AS n", "only CREATE VIEW"),
        (HEADER + QUERY + "; CREATE VIEW other.a AS SELECT trips FROM some", "the name of a table, without"),
        (HEADER + QUERY + "; CREATE VIEW a (n) AS SELECT trips FROM some", "only CREATE VIEW"),
        (HEADER + QUERY + "; CREATE VIEW a AS SELECT AVG(trips) AS n FROM some", "Avg"),
        (
            HEADER + QUERY + '; CREATE VIEW "a" AS SELECT trips FROM some',
            "must begin with CREATE VIEW and a unique name",
        ),
        (HEADER + QUERY + "; CREATE OR REPLACE VIEW a AS SELECT trips FROM some", "must begin with CREATE VIEW"),
        (HEADER + QUERY + "; CREATE /* */ VIEW a AS SELECT trips FROM some", "must begin with CREATE VIEW"),
        (
            HEADER + QUERY + "; CREATE VIEW a AS SELECT tripz FROM some",
            "names something that does not exist: Column 'tripz'",
        ),
        (HEADER + QUERY.replace("SUM(trips)", "SUM(tripz)"), "names something that does not exist: Column 'tripz'"),
        (HEADER + QUERY + ", boroughs", "names something that does not exist: Column 'boroughs'"),
        (
            HEADER + QUERY.replace("all_trips", "all_trips JOIN taxi_zones AS z ON z.number = pickup_location_id"),
            "names something that does not exist: Unknown column: number",
        ),
        (HEADER + QUERY.replace("SELECT data_month", "SELEC data_month"), "cannot be parsed"),
        (HEADER + "SELEC data_month", "cannot be parsed: 'SELEC AS data_month' is not a statement"),
        (HEADER, "there is no query"),
    ],
)
def test_a_mart_with_invalid_sql_is_rejected(text: str, message: str) -> None:
    with pytest.raises(MartDefinitionError, match="some: ") as error:
        mart_queries(read_mart("some", text))
    assert message in error.value.problem


RATIOS = [
    "AVG(fare)",
    "SUM(fare) / SUM(trips)",
    "CAST(SUM(fare) AS DOUBLE) / NULLIF(SUM(trips), 0)",
    "COALESCE(100 * (CAST(SUM(fare) AS DOUBLE) / NULLIF(SUM(trips), 0)), 0)",
]


@pytest.mark.parametrize("value", RATIOS)
def test_the_error_for_a_measure_that_is_a_ratio_says_that_it_belongs_in_a_view(value: str) -> None:
    with pytest.raises(MartDefinitionError) as error:
        mart_queries(read_mart("some", HEADER + QUERY.replace("SUM(trips)", value)))
    assert error.value.problem.startswith("some: the measure trips is a ratio, '")
    assert "divide them in a view below the query, as CREATE VIEW payment_mix_ratios" in error.value.remedy


@pytest.mark.parametrize(
    "value", ["CAST(SUM(seconds) AS DOUBLE) / 60", "SUM(CAST(miles AS DOUBLE) / NULLIF(trips, 0))"]
)
def test_a_measure_that_can_be_added_up_may_divide(value: str) -> None:
    mart_queries(read_mart("some", HEADER + QUERY.replace("SUM(trips)", value)))


@pytest.mark.parametrize("name", marts())
def test_every_mart_has_the_views_that_its_file_creates(name: str) -> None:
    query, views = mart_queries(marts()[name])
    assert query.named_selects == [column.name for column in marts()[name].columns]
    assert [*views] == marts()[name].views


def test_columns_of_unknown_tables_are_left_to_the_engine() -> None:
    views = "; CREATE VIEW a AS SELECT trips FROM some; CREATE VIEW b AS SELECT what FROM a"
    assert [*mart_queries(read_mart("some", HEADER + QUERY + views))[1]] == ["a", "b"]


def test_all_trips_needs_a_service_and_a_month() -> None:
    query = parse("SELECT COUNT(*) AS n FROM all_trips", "query")
    for services, months in (([], [MONTH]), ([GREEN], [])):
        with pytest.raises(MartDefinitionError, match="no services and months"):
            expand_all_trips(query, services, months)
    assert tables_of(expand_all_trips(query, [GREEN, FHV], [MONTH])) == {"green_trips", "fhv_trips"}


def test_a_name_in_a_with_clause_hides_the_table_of_that_name() -> None:
    query = parse("WITH all_trips AS (SELECT trips FROM zone_day) SELECT SUM(trips) AS n FROM all_trips", "query")
    assert tables_of(query) == {"zone_day"}
    assert expand_all_trips(query, [], []) == query
    assert render(query, "duckdb", '"taxi"."{}"'.format).count('"taxi".') == 1


def test_every_place_that_reads_a_table_is_replaced() -> None:
    query = parse("SELECT trips FROM all_trips UNION ALL SELECT trips FROM all_trips", "query")
    expanded = expand_all_trips(query, [GREEN], [MONTH])
    assert tables_of(expanded) == {"green_trips"}
    assert render(expanded, "duckdb", '"taxi"."{}"'.format).count('"taxi"."green_trips"') == 2


# --- what columns are -------------------------------------------------------------------------------------------------


def test_the_lineage_of_a_mart_leads_to_the_columns_of_trips_and_zones() -> None:
    found = column_lineage(marts()["od_flows"], [GREEN, FHV, FHVHV])
    assert list(found) == [column.name for column in marts()["od_flows"].columns]
    assert found["data_month"] == {(f"{name}_trips", "data_month") for name in ("green", "fhv", "fhvhv")}
    assert found["service"] == set()
    assert found["pickup_borough"] == {("taxi_zones", "borough"), ("taxi_zones", "zone")}
    assert found["passengers"] == {("green_trips", "passenger_count"), ("green_trips", "is_reversal")}
    assert found["fare"] == {("green_trips", "fare_amount"), ("fhvhv_trips", "base_passenger_fare")}
    assert ("fhvhv_trips", "black_car_fund") in found["revenue"]
    assert found["seconds"] >= {(f"{name}_trips", "trip_seconds") for name in ("green", "fhv", "fhvhv")}


def test_lineage_goes_through_subqueries_and_joins() -> None:
    assert column_lineage(marts()["hour_of_week"], [YELLOW])["days"] == {("yellow_trips", "pickup_date")}
    assert column_lineage(marts()["payment_mix"], [YELLOW])["payment"] == {("yellow_trips", "payment_type")}


def test_lineage_goes_through_with_clauses_and_subqueries_in_expressions() -> None:
    sql = (
        "WITH days AS (SELECT data_month, service, trips AS n FROM all_trips) SELECT data_month, service, "
        "(SELECT MAX(z.zone) AS m FROM taxi_zones AS z) AS last_zone, SUM(n) AS trips FROM days "
        "GROUP BY data_month, service"
    )
    header = HEADER.replace("measures:", "columns:\n  last_zone: {type: text, description: Last.}\nmeasures:")
    lineage = column_lineage(read_mart("some", header + sql), [GREEN])
    assert lineage["last_zone"] == {("taxi_zones", "zone")}
    assert lineage["trips"] == {("green_trips", "is_reversal")}


@pytest.mark.parametrize("name", marts())
def test_lineage_names_only_existing_columns(name: str) -> None:
    mart = marts()[name]
    known = {(service.table, column.name) for service in SERVICES.values() for column in service.columns}
    known |= {("taxi_zones", column) for column in ("location_id", "borough", "zone")}
    for service in mart.services:
        found = column_lineage(mart, [service])
        assert set().union(*found.values()) <= known
        assert found["data_month"] == {(service.table, "data_month")}


def test_column_types_are_known_before_a_query_runs() -> None:
    query = parse(
        "SELECT z.borough, COUNT(*) AS n, SUM(t.trips) AS trips, SUM(t.revenue) AS revenue, MAX(t.miles) AS miles, "
        "MIN(t.pickup_date) AS day, CAST(SUM(t.fare) AS DOUBLE) / NULLIF(COUNT(*), 0) AS mean "
        "FROM all_trips AS t LEFT JOIN taxi_zones AS z ON z.location_id = t.pickup_location_id GROUP BY z.borough",
        "query",
    )
    assert column_types(query) == {
        "borough": "TEXT",
        "n": "BIGINT",
        "trips": "BIGINT",
        "revenue": "DECIMAL(12, 2)",
        "miles": "DECIMAL(12, 3)",
        "day": "DATE",
        "mean": "DOUBLE",
    }


def test_columns_of_views_have_types() -> None:
    query = parse("SELECT trips, share_of_trips FROM market_share_ratios", "query")
    assert column_types(query) == {"trips": "BIGINT", "share_of_trips": "DOUBLE"}


def test_a_query_shows_which_columns_can_be_null() -> None:
    zone_day, od_flows, payment_mix = (marts()[name] for name in ("zone_day", "od_flows", "payment_mix"))
    assert all(is_never_null(od_flows, column) for column in od_flows.key)
    assert all(is_never_null(payment_mix, column) for column in payment_mix.key)
    # Rules can be left out of a run: then there are trips without a pickup.
    assert [is_never_null(zone_day, column) for column in zone_day.key] == [True, True, False, True]
    assert not is_never_null(od_flows, "fare")


def test_every_column_of_all_trips_is_recorded_or_null_for_each_service() -> None:
    query = parse("SELECT * FROM all_trips", "query")
    for service in SERVICES.values():
        names = expand_all_trips(query, [service], [MONTH]).find(exp.Subquery).this.named_selects  # type: ignore[union-attr]
        assert names == ["service", *(column.name for column in all_trips.COLUMNS)]
