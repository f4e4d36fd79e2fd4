{# Returns the variable `month`, such as 2021-01, as a date literal; none if it is not set. #}
{% macro month_literal() %}
  {%- set month = var("month", none) -%}
  {%- if month is none -%}
    {{ return(none) }}
  {%- endif -%}
  {%- if not modules.re.fullmatch("[0-9]{4}-(0[1-9]|1[0-2])", month | string) -%}
    {{ exceptions.raise_compiler_error("month is " ~ month ~ ". Write it as YYYY-MM, such as 2021-01.") }}
  {%- endif -%}
  {{ return("date '" ~ month ~ "-01'") }}
{% endmacro %}


{# A condition for rows of the month that is built. It is always true if all months are built. #}
{% macro in_month(column) %}
  {%- set month = month_literal() -%}
  {{ "true" if month is none else column ~ " = " ~ month }}
{%- endmacro %}


{#
  The incremental strategy replace_month, for DuckDB and Postgres. dbt runs all statements in one transaction.
  dbt's strategy delete+insert deletes only the months that the new rows have: a month that has no more rows would stay.
  Without the lock, two runs of one month at the same time could both insert its rows. DuckDB admits one process anyway.
#}
{% macro get_incremental_replace_month_sql(arguments) %}
  {%- set columns = get_quoted_csv(arguments["dest_columns"] | map(attribute="name")) -%}
  {% if target.type == "postgres" %}
  lock table {{ arguments["target_relation"] }} in share row exclusive mode;
  {% endif %}
  delete from {{ arguments["target_relation"] }} where {{ in_month("data_month") }};
  insert into {{ arguments["target_relation"] }} ({{ columns }})
  select {{ columns }} from {{ arguments["temp_relation"] }}
{% endmacro %}
