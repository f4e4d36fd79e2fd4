-- Returns months in which airport_days does not have the trips of airport_trips.
select coalesce(days.data_month, trips.data_month) as data_month
from (select data_month, sum(trips) as trips from {{ ref('airport_days') }} group by data_month) as days
full join (select data_month, count(*) as trips from {{ ref('airport_trips') }} group by data_month) as trips
    on days.data_month = trips.data_month
where days.trips is distinct from trips.trips
