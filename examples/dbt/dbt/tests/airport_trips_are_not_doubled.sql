-- Returns trips that are in the table more than once.
select data_month, source_row
from {{ ref('airport_trips') }}
group by data_month, source_row
having count(*) > 1
